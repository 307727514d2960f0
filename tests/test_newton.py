"""Newton on the trajectory: the sequential states and derivatives, and an honest report."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from seqjax.core.newton import newton, parallel_backward
from seqjax.zoo import make

T, D = 9, 3
K = jax.random.split(jax.random.key(0), 3)
W, X, H0 = (
    jax.random.normal(K[0], (D, D)) / 2,
    jax.random.normal(K[1], (T, D)),
    jax.random.normal(K[2], (D,)),
)

STEPS = {  # Jacobian structure -> (step with parameters W, starting state)
    "dense": (lambda W: lambda h, x: jnp.tanh(W @ h + x), H0),
    "diagonal": (lambda W: lambda h, x: jnp.tanh(W[0] * h + x), H0),
    "block_diagonal": (
        lambda W: lambda h, x: jnp.tanh((W[None] @ h[..., None])[..., 0] + x[None]),
        jnp.stack([H0, 2 * H0]),
    ),
}


def sequential(step, xs, h):
    return lax.scan(lambda h, x: ((new := step(h, x)), new), h, xs)[1]


@pytest.mark.share(2)
@pytest.mark.parametrize("structure", STEPS)
@pytest.mark.parametrize("way", ["newton", "parallel_backward"])
def test_states_and_derivatives(structure, way):
    step, h0 = STEPS[structure]
    if way == "newton":
        run = lambda W, xs, h: newton(step(W), xs, h, jacobian=structure).states  # noqa: E731
    else:
        run = lambda W, xs, h: parallel_backward(step(W), xs, h, jacobian=structure)[0]  # noqa: E731
    plain = lambda W, xs, h: sequential(step(W), xs, h)  # noqa: E731
    loss = lambda f: lambda *a: jnp.sum(jnp.sin(f(*a)))  # noqa: E731

    def all_of(f):
        return jax.jit(
            lambda *a: (
                f(*a),
                jax.grad(loss(f), (0, 1, 2))(*a),
                jax.jvp(f, a, a)[1],
                jax.hessian(loss(f))(*a),
            )
        )(W, X, h0)

    for got, expected in zip(
        jax.tree.leaves(all_of(run)), jax.tree.leaves(all_of(plain)), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)


def test_each_example_of_a_batch_stops_and_falls_back_on_its_own():
    """A gentle, a normal and a violently expansive network in one vmap, values and gradients."""
    scales = jnp.array([0.1, 1.0, 20.0])
    step = STEPS["dense"][0]
    result = jax.jit(jax.vmap(lambda s: newton(step(W * s), X, H0, max_iterations=6)))(scales)
    assert result.fell_back.tolist() == [False, False, True]
    assert result.iterations[0] < result.iterations[1] <= 6
    assert jnp.all(result.residual < 1e-12)
    expected = jax.vmap(lambda s: sequential(step(W * s), X, H0))(scales)
    np.testing.assert_allclose(result.states, expected, atol=1e-9)
    np.testing.assert_allclose(result.last, expected[:, -1], atol=1e-9)
    total = lambda run: lambda s: jax.vmap(run)(s).sum()  # noqa: E731
    got = jax.jit(jax.grad(total(lambda s: newton(step(W * s), X, H0, max_iterations=6).states)))(
        scales
    )
    np.testing.assert_allclose(
        got, jax.grad(total(lambda s: sequential(step(W * s), X, H0)))(scales), rtol=1e-8
    )


def test_overflowing_iterates_fall_back():
    """Linearisations of h + h^3 explode: the loop takes over and says so."""
    step = lambda h, x: jnp.tanh(60 * jnp.sin(40 * h) + x)  # noqa: E731
    xs = jax.random.normal(jax.random.key(5), (64, D))
    result = jax.jit(lambda xs: newton(step, xs, H0, jacobian="diagonal", max_iterations=8))(xs)
    assert bool(result.fell_back)
    np.testing.assert_allclose(result.states, sequential(step, xs, H0), atol=1e-12)


def test_quasi_and_damping_reach_the_same_states():
    step = STEPS["dense"][0](W)
    plain = newton(step, X, H0)
    for options in (dict(quasi=True), dict(damping=0.5)):
        other = newton(step, X, H0, **options)
        assert not other.fell_back and other.iterations >= plain.iterations
        np.testing.assert_allclose(other.states, plain.states, atol=1e-11)


def test_pytree_states_and_empty_sequences():
    step = lambda h, x: {"a": jnp.tanh(h["b"] + x), "b": h["a"] * x}  # noqa: E731
    h = {"a": H0, "b": -H0}
    got, last = parallel_backward(step, X, h)
    expected = sequential(step, X, h)
    for key in "ab":
        np.testing.assert_allclose(got[key], expected[key])
        np.testing.assert_allclose(newton(step, X, h).states[key], expected[key], atol=1e-11)
        np.testing.assert_allclose(last[key], expected[key][-1])
    empty = newton(step, X[:0], h)
    assert empty.states["a"].shape == (0, D) and not empty.fell_back
    np.testing.assert_array_equal(empty.last["b"], h["b"])


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(jacobian="dens"), "did you mean 'dense'"),
        (dict(damping=1.0), "damping must be in"),
        (dict(jacobian="diagonal", quasi=True), "quasi is the diagonal of a dense"),
    ],
)
def test_errors(wrong, message):
    with pytest.raises(ValueError, match=message):
        newton(STEPS["dense"][0](W), X, H0, **wrong)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("evaluator", [None, "associative"])
def test_states_of_16_bits(dtype, evaluator):
    """Within a rounding of the loop in that dtype, and so are the derivatives."""
    w, xs, h0 = (z.astype(dtype) for z in (W, X, H0))
    step = STEPS["dense"][0]
    eps = float(jnp.finfo(dtype).eps)

    def compare(got, expected, scale):
        assert got.dtype == dtype
        got, expected = (np.asarray(z, np.float64) for z in (got, expected))
        np.testing.assert_allclose(got, expected, rtol=0, atol=scale * eps)

    ways = (
        lambda w: newton(step(w), xs, h0, evaluator=evaluator).states,
        lambda w: parallel_backward(step(w), xs, h0, evaluator=evaluator)[0],
        lambda w: sequential(step(w), xs, h0),
    )

    @jax.jit
    def all_of(w):
        result = newton(step(w), xs, h0, evaluator=evaluator)
        gradient = lambda states: jax.grad(lambda w: states(w).sum())(w)  # noqa: E731
        return result, *((states(w), gradient(states)) for states in ways)

    result, *others, (states, gradient) = all_of(w)
    assert not result.fell_back
    for found, moved in others:
        compare(found, states, 2)
        compare(moved, gradient, 4 * float(jnp.abs(gradient).max()))


def test_nan_states_are_never_taken_for_converged():
    """8192 numbers: past 4095 the maxima of XLA:CPU lose a NaN (docs/upstream.md)."""
    layer = make("elman", 8, recurrent_scale=4.0, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 1024, 8), jnp.float32)
    y, _ = layer(x, evaluator="newton")
    assert jnp.all(jnp.isfinite(y))
    np.testing.assert_allclose(y[:, :20], layer(x[:, :20])[0], atol=1e-4)  # later it is chaotic
