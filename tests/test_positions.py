"""Angles of positions are exact in float32, however large the window or long the text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.layers.attention.attention import Attention
from seqjax.layers.linear_attention.retnet import turn
from seqjax.layers.segment.transformer_xl import positions
from seqjax.ops.positions import angles, rotary
from seqjax.zoo import make

RATES = {
    "rotary": 10_000.0 ** (-np.arange(32) / 32),
    "turns and half turns": np.linspace(-np.pi, np.pi, 5),
    "more than a turn a step": np.array([7.5, -100.0, 1e-9]),
}
F32 = jnp.float32


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), F32)


@pytest.mark.share(6)
@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("furthest", [16, 131_072, 1_000_000, 2**31 - 1])
def test_angles(name, furthest):
    n = np.concatenate([np.arange(furthest - 8, furthest), -np.arange(furthest - 8, furthest)])
    found = angles(jnp.asarray(n), RATES[name], F32)
    assert found.dtype == F32 and bool(jnp.all(jnp.abs(found) < 3.15))
    exact = np.asarray(n, np.longdouble)[:, None] * np.asarray(RATES[name], np.longdouble)
    tolerance = 4e-7 if furthest <= 1_000_000 else 1e-4
    for f in (np.cos, np.sin):
        np.testing.assert_allclose(f(np.asarray(found, float)), f(exact), rtol=0, atol=tolerance)
    wide = angles(jnp.asarray(n), RATES[name], jnp.float64)
    np.testing.assert_allclose(np.cos(wide), np.cos(exact).astype(float), rtol=0, atol=1e-5)


def test_learned_rates():
    """Of the value the same rate is used at all positions; the derivative is the product's."""
    theta = jnp.asarray(RATES["rotary"][:4], F32)
    far = 1_000_000 + jnp.arange(8, dtype=jnp.int32)
    differences = angles(far, theta, F32) - angles(far[:1], theta, F32)
    expected = np.arange(8)[:, None] * np.asarray(theta, float)[None]
    np.testing.assert_allclose(np.cos(differences), np.cos(expected), atol=1e-6)
    gradient = jax.grad(lambda theta: angles(far, theta, F32)[3].sum())(theta)
    np.testing.assert_allclose(gradient, jnp.full(4, 1_000_003.0))


@pytest.mark.parametrize("far", [131_072, 1_000_000, 2_000_000_000])
def test_products_of_turned_vectors_depend_on_distances_only(far):
    q, k = normal(0, 8, 1, 16), normal(1, 8, 1, 16)
    place = jnp.arange(8, dtype=jnp.int32)

    def scores(place):
        return jnp.einsum("thk,shk->ts", rotary(q, place), rotary(k, place))

    np.testing.assert_allclose(scores(place + far), scores(place), atol=5e-6)


@pytest.mark.thorough
def test_a_short_text_in_a_large_window():
    """Slots of the window count from its far end; 16 tokens are the same in any."""
    x = normal(0, 1, 16, 4)

    def outputs(window):
        layer = Attention(4, heads=1, window=window, rngs=nnx.Rngs(0))
        return jax.jit(lambda layer, x: layer(x))(layer, x)[0]

    expected = outputs(16)
    for window in (4096, 131_072):
        np.testing.assert_allclose(outputs(window), expected, rtol=0, atol=1e-6)


def test_a_stream_at_the_millionth_step():
    """Linear attention with learned positions reads the same a million steps later."""
    layer = make("transnormer_llm", 4, heads=1, depth=1)
    x, h = normal(0, 1, 6, 4), layer.batch_state(1)

    def later(place):
        is_place = lambda v: v + place if jnp.issubdtype(v.dtype, jnp.integer) else v  # noqa: E731
        return layer(x, jax.tree.map(is_place, h))[0]

    np.testing.assert_allclose(later(1_000_000), later(0), rtol=0, atol=2e-6)


def test_other_tables_of_angles():
    exact = np.arange(131_072, -1, -1)[:, None] * 10_000.0 ** (-np.arange(0, 4, 2) / 4)
    table = np.concatenate([np.sin(exact), np.cos(exact)], axis=1)
    np.testing.assert_allclose(positions(131_072, 4, F32), table, atol=4e-7)
    x = normal(0, 3, 1, 4)
    turned = turn(x, angles(jnp.full(3, 10**6), RATES["rotary"][:2], F32))
    np.testing.assert_allclose(jnp.sum(turned**2), jnp.sum(x**2), rtol=1e-5)
