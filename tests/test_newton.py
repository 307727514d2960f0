"""Newton on the trajectory: the sequential states and derivatives, and an honest report."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from seqjax.core.monoid import block_diagonal, dense, diagonal
from seqjax.core.newton import STRUCTURES, newton, parallel_backward
from seqjax.core.smoother import smoothed
from seqjax.testing import LawBroken, check_jacobian
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


@pytest.mark.share(3)
@pytest.mark.parametrize("structure", STEPS)
@pytest.mark.parametrize("way", ["newton", "elk", "parallel_backward"])
def test_states_and_derivatives(structure, way):
    step, h0 = STEPS[structure]
    if way != "parallel_backward":
        trust = 0.01 if way == "elk" else None
        run = lambda W, xs, h: newton(step(W), xs, h, jacobian=structure, trust=trust).states  # noqa: E731
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


def test_rows_of_several_arrays_are_blocks():
    """A state of a tree: rows of all its arrays, and none other, see each other."""

    def step(h, x):
        a, b = h["a"], h["b"]
        return {"a": jnp.tanh(a + b.sum(axis=1) + x), "b": jnp.sin(b * a[:, None] + x[:, None])}

    h0 = {"a": H0, "b": jnp.stack([H0, 2 * H0], axis=1)}
    loss = lambda f: lambda *a: sum(jnp.sum(jnp.sin(v)) for v in jax.tree.leaves(f(*a)))  # noqa: E731
    plain = lambda xs, h: sequential(step, xs, h)  # noqa: E731
    blocks = lambda xs, h: newton(step, xs, h, jacobian="block_diagonal").states  # noqa: E731
    both = [
        jax.jit(lambda *a, f=f: (f(*a), jax.grad(loss(f), (0, 1))(*a)))(X, h0)
        for f in (plain, blocks)
    ]
    for got, expected in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)
    check_jacobian(step, h0, X[0], "block_diagonal")
    with pytest.raises(LawBroken, match="blocks see each other"):
        check_jacobian(lambda h, x: {"a": h["a"][::-1], "b": h["b"]}, h0, X[0], "block_diagonal")
    with pytest.raises(ValueError, match=r"a diagonal Jacobian is of a state of one array"):
        newton(step, X, h0, jacobian="diagonal")
    with pytest.raises(ValueError, match=r"a block_diagonal Jacobian is of arrays \[G, ...\]"):
        newton(step, X, h0 | {"b": jnp.zeros((2, 2))}, jacobian="block_diagonal")


@pytest.mark.share(3)
@pytest.mark.parametrize("structure, affine", [("dense", dense), ("diagonal", diagonal),
                                               ("block_diagonal", block_diagonal)])  # fmt: skip
@pytest.mark.parametrize("trust", [1e-3, 0.3, 5.0])
def test_the_smoother_is_a_least_squares_problem(structure, affine, trust):
    """Of blocks and of diagonals each block, or entry, by itself."""
    draw, blocks, n = (
        np.random.default_rng(0),
        *{"dense": (1, 3), "diagonal": (3, 1)}.get(structure, (2, 3)),
    )
    J, b, g = 2 * draw.normal(size=(T, blocks, n, n)), *draw.normal(size=(2, T, blocks, n))
    h0 = draw.normal(size=(blocks, n))
    shaped = {"dense": lambda x: x[:, 0], "diagonal": lambda x: x.reshape(T, blocks)}
    shape = shaped.get(structure, lambda x: x)
    found = smoothed(
        *map(shape, (J, b, g)), shape(h0[None].repeat(T, 0))[0], trust,
        affine=affine, times=STRUCTURES[structure].times,
    )  # fmt: skip
    expected = np.zeros_like(b)
    for block in range(blocks):
        A, y = np.eye(T * n), b[:, block].copy()
        y[0] += J[0, block] @ h0[block]
        for t in range(1, T):
            A[t * n : (t + 1) * n, (t - 1) * n : t * n] = -J[t, block]
        near = trust**0.5 * np.eye(T * n)
        right = np.concatenate([y.ravel(), trust**0.5 * g[:, block].ravel()])
        solved = np.linalg.lstsq(np.concatenate([A, near]), right, rcond=None)[0]
        expected[:, block] = solved.reshape(T, n)
    np.testing.assert_allclose(found, shape(expected), rtol=1e-9, atol=1e-9)


def test_steps_that_expand_are_found_after_few_iterations():
    """Twice the weights at which linear steps neither grow nor shrink: 1024 of them overflow."""
    draw = np.random.default_rng(4)
    W = jnp.asarray(2 * draw.normal(size=(8, 8)) / 8**0.5, jnp.float32)
    xs, h0 = jnp.asarray(draw.normal(size=(1024, 8)), jnp.float32), jnp.zeros(8, jnp.float32)
    step = lambda h, x: jnp.tanh(W @ h + x)  # noqa: E731
    found = jax.jit(lambda xs: newton(step, xs, h0, max_iterations=100))(xs)
    assert not found.fell_back and 10 < found.iterations < 70
    np.testing.assert_allclose(found.states, sequential(step, xs, h0), atol=1e-5)


def test_a_guess_of_before_is_a_warm_start():
    step = STEPS["dense"][0]
    state = {"a": H0[:1], "b": H0[1:]}

    def of(W):
        def both(h, x):
            new = step(W)(jnp.concatenate([h["a"], h["b"]]), x)
            return {"a": new[:1], "b": new[1:]}

        return both

    before = newton(of(0.99 * W), X, state)
    cold, warm = newton(of(W), X, state), newton(of(W), X, state, guess=before.states)
    assert warm.iterations < cold.iterations
    assert newton(of(W), X, state, guess=cold.states).iterations == 0
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), warm[:2], cold[:2])
    total = lambda W: jnp.sum(newton(of(W), X, state, guess=before.states).states["b"])  # noqa: E731
    plain = lambda W: jnp.sum(sequential(step(W), X, H0)[:, 1:])  # noqa: E731
    np.testing.assert_allclose(jax.grad(total)(W), jax.grad(plain)(W), atol=1e-10)


def test_a_trust_region_takes_fewer_iterations():
    draw = np.random.default_rng(0)
    W = jnp.asarray(1.5 * draw.normal(size=(8, 8)) / 8**0.5)
    xs, h0 = jnp.asarray(draw.normal(size=(512, 8))), jnp.zeros(8)
    step = lambda h, x: jnp.tanh(W @ h + x)  # noqa: E731
    plain, near = (jax.jit(lambda xs, t=t: newton(step, xs, h0, trust=t))(xs) for t in (None, 0.01))
    assert near.iterations < plain.iterations and not near.fell_back
    np.testing.assert_allclose(near.states, sequential(step, xs, h0), atol=1e-10)


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
    """What is chaotic is not found in 8 iterations: the loop takes over, and `fell_back` is set."""
    step = lambda h, x: jnp.tanh(60 * jnp.sin(40 * h) + x)  # noqa: E731
    xs = jax.random.normal(jax.random.key(5), (64, D))
    result = jax.jit(lambda xs: newton(step, xs, H0, jacobian="diagonal", max_iterations=8))(xs)
    assert bool(result.fell_back)
    np.testing.assert_allclose(result.states, sequential(step, xs, H0), atol=1e-12)


def test_quasi_and_damping_reach_the_same_states():
    step = STEPS["dense"][0](W)
    plain = newton(step, X, H0)
    for options in (dict(quasi=True), dict(damping=0.5), dict(quasi=True, trust=0.1)):
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
        (dict(trust=0.0), "trust must be above 0"),
        (dict(guess=X[:4]), "guess must be states like"),
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
