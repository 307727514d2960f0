"""Landscapes: spectra against dense matrices, gradients through training against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from seqjax.stacks.config import LayerConfig
from seqjax.theory import landscapes
from seqjax.theory.finding import each

random = np.random.default_rng(0)
KEY = jax.random.key(2)


def layer_of(name, features=3, **options):
    ((_, layer),) = each([LayerConfig(name, options)], features, seed=0)
    return layer


def recall(name="gru", steps=5, examples=6, **options):
    return landscapes.problem(layer_of(name, **options), KEY, steps=steps, examples=examples)


def dense(of):
    flat, back = ravel_pytree(of.weights)
    return jax.jit(jax.hessian(lambda flat: of.loss(back(flat))))(flat)


def test_a_spectrum_is_that_of_the_dense_hessian():
    of = recall("elman")
    H = dense(of)
    values = np.linalg.eigvalsh(H)
    v = jnp.asarray(random.normal(size=len(H)))
    np.testing.assert_allclose(landscapes.hessian(of.loss, of.weights)(v), H @ v, atol=1e-12)
    found = landscapes.lanczos(lambda v: H @ v, v, len(H)).matrix()
    # the loss is flat along some directions: an eigenvalue that is there twice is found once
    far = [np.abs(values - theta).min() for theta in np.linalg.eigvalsh(found)]
    assert np.max(far) < 1e-10 and found.shape == H.shape
    ends = jax.jit(lambda w: landscapes.extremes(of.loss, w, KEY, steps=30))(of.weights)
    np.testing.assert_allclose(ends, values[[0, -1]], rtol=1e-8)


def test_lanczos_ends_with_its_space():
    """Three eigenvalues, each many times: three steps, whatever more are asked for."""
    H = np.diag(np.repeat([1.0, -2.0, 5.0], 4))
    found = landscapes.lanczos(lambda v: jnp.asarray(H) @ v, jnp.asarray(random.normal(size=12)), 8)
    assert found.diagonal.shape == (8,) and np.all(found.beside[2:] == 0)
    np.testing.assert_allclose(np.linalg.eigvalsh(found.matrix()[:3, :3]), [-2, 1, 5], rtol=1e-12)
    assert not np.any(found.diagonal[3:])


def test_a_density_is_the_share_of_eigenvalues():
    """Of a quadratic loss: its integral is 1, its mean that of the eigenvalues, their masses those
    that they have."""
    values = np.r_[np.full(30, 0.5), np.full(10, -1.0), np.linspace(2, 4, 20)]
    Q = np.linalg.qr(random.normal(size=(60, 60)))[0]
    H = jnp.asarray(Q @ np.diag(values) @ Q.T)
    at, width = jnp.linspace(-3, 6, 1801), 0.05
    found = landscapes.density(
        lambda w: w @ H @ w / 2, jnp.zeros(60), at, KEY, steps=40, starts=60, width=width
    )
    step = float(at[1] - at[0])
    np.testing.assert_allclose(found.sum() * step, 1, rtol=1e-6)
    np.testing.assert_allclose((found * at).sum() * step, values.mean(), atol=0.05)
    for low, high, share in ((-1.3, -0.7, 1 / 6), (0.2, 0.8, 1 / 2), (1.7, 4.3, 1 / 3)):
        inside = (at > low) & (at < high)
        np.testing.assert_allclose(jnp.where(inside, found, 0).sum() * step, share, atol=0.03)


@pytest.mark.thorough
def test_filters_are_as_long_as_those_of_the_weights():
    of = recall("lstm")
    d = landscapes.direction(of.weights, KEY)
    kernel, into = of.weights["layer"]["W"]["kernel"][...], d["layer"]["W"]["kernel"][...]
    np.testing.assert_allclose(jnp.linalg.norm(into, axis=0), jnp.linalg.norm(kernel, axis=0))
    U, dU = of.weights["layer"]["U"][...], d["layer"]["U"][...]
    np.testing.assert_allclose(jnp.linalg.norm(dU, axis=-1), jnp.linalg.norm(U, axis=-1))
    assert not np.any(d["layer"]["W"]["bias"][...]) and np.any(dU)
    other = landscapes.direction(of.weights, jax.random.key(3))
    at = jnp.array([-0.5, 0.0, 0.25])
    seen = jax.jit(lambda w: landscapes.plane(of.loss, w, d, other, at))(of.weights)
    moved = jax.tree.map(lambda w, a, b: w - 0.5 * a + 0.25 * b, of.weights, d, other)
    np.testing.assert_allclose(seen[0, 2], of.loss(moved), rtol=1e-12)
    np.testing.assert_allclose(seen[1, 1], of.loss(of.weights), rtol=1e-12)


def test_a_walk_down_a_parabola():
    """w_T = (1 - rate h)^T w_0, and its derivative in the rate."""
    h, w, rate, T = jnp.array([1.0, 3.0]), jnp.array([2.0, -1.0]), 0.1, 20

    def end(rate):
        return landscapes.walk(lambda w: jnp.sum(h * w**2) / 2, w, rate, T, momentum=0.0)

    np.testing.assert_allclose(end(rate), (1 - rate * h) ** T * w, rtol=1e-12)
    slope = -T * h * (1 - rate * h) ** (T - 1) * w
    np.testing.assert_allclose(jax.jacrev(end)(rate), slope, rtol=1e-11)


@pytest.mark.thorough
def test_gradients_through_training_are_finite_differences():
    """In the rate, in the scale of the first weights, in a gate at each step."""
    of, rate, updates = recall(steps=4), 0.05, 30

    @jax.jit
    def end(log_rate, log_scale, gates):
        first = jax.tree.map(lambda v: jnp.exp(log_scale) * v, of.weights)
        w = landscapes.walk(lambda w: of.loss(w, gates), first, rate * jnp.exp(log_rate), updates)
        return jnp.log(of.loss(w, gates))

    found = jax.jit(lambda: landscapes.walked(of, rate, updates))()
    np.testing.assert_allclose(jnp.log(found.loss), end(0.0, 0.0, jnp.zeros(4)), rtol=1e-9)
    assert float(found.loss) < 0.7 * float(of.loss(of.weights))
    e = 1e-5
    for n in range(2):
        at = [e * (n == 0), e * (n == 1)]
        difference = end(*at, jnp.zeros(4)) - end(-at[0], -at[1], jnp.zeros(4))
        np.testing.assert_allclose(found.by[n], difference / (2 * e), rtol=1e-6)
    for t in range(4):
        gate = jnp.zeros(4).at[t].set(e)
        difference = end(0.0, 0.0, gate) - end(0.0, 0.0, -gate)
        np.testing.assert_allclose(found.by[2][t], difference / (2 * e), rtol=1e-5, atol=1e-9)
    assert found.by[2][0] == 0  # the first state is the start


@pytest.mark.share(1)
@pytest.mark.parametrize("name", ["lru", "lstm"])
def test_a_gate_of_1_is_a_reset_and_of_0_is_none(name):
    of, layer = recall(name, steps=6), layer_of(name)
    read = of.weights["read"]["kernel"]
    for gates in (np.zeros(6), np.array([0.0, 0, 1, 0, 1, 0])):
        y = layer(of.x, resets=jnp.broadcast_to(gates > 0, (6, 6)))[0][:, -1] @ read
        found = jax.vmap(lambda x, gates=gates: of.f(of.weights, x, jnp.asarray(gates)))(of.x)
        np.testing.assert_allclose(found, y[:, 0], rtol=1e-10)


@pytest.mark.thorough
def test_a_tangent_kernel_is_the_product_of_jacobians():
    of = recall("lru", steps=4)
    gates = jnp.zeros(4)
    f = lambda w, x: of.f(w, x, gates)  # noqa: E731
    K = jax.jit(lambda w: landscapes.tangents(f, w, of.x, of.x[:2]))(of.weights)
    J = jax.vmap(lambda x: ravel_pytree(jax.grad(f)(of.weights, x))[0])(of.x)
    np.testing.assert_allclose(K, J @ J[:2].T, rtol=1e-10)
    # and of a function that is linear in its weights the kernel of its features
    linear = landscapes.tangents(lambda w, x: w @ x, jnp.ones(3), of.x[0], of.x[0])
    np.testing.assert_allclose(linear, of.x[0] @ of.x[0].T, rtol=1e-12)


@pytest.mark.thorough
def test_tangent_kernels_say_how_outputs_move():
    """One small step of gradient descent moves f by -rate K (f - y) / n."""
    of = recall(steps=4)
    gates = jnp.zeros(4)
    f = lambda w, x: of.f(w, x, gates)  # noqa: E731
    before = jax.vmap(lambda x: f(of.weights, x))(of.x)
    after = landscapes.walk(of.loss, of.weights, 1e-6, 1, momentum=0.0)
    moved = (jax.vmap(lambda x: f(after, x))(of.x) - before) / 1e-6
    K = landscapes.tangents(f, of.weights, of.x, of.x)
    np.testing.assert_allclose(moved, -K @ (before - of.x[:, 0, 0]) / len(of.x), rtol=1e-4)


@pytest.mark.thorough
def test_the_question():
    layers = [LayerConfig("indrnn")]
    found = landscapes.landscapes(layers, features=2, steps=3, examples=3, updates=4, products=4)
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert float(row["trained"]) <= float(row["loss"])
    assert float(row["least"]) <= float(row["largest"]) and 1 <= float(row["rank of NTK"]) <= 3
    at, density = found.curves["indrnn"]
    assert len(at) == len(density)
    with pytest.raises(ValueError, match="has a state that starts at infinity"):
        landscapes.landscapes([LayerConfig("abc", {"heads": 1})], features=2)
