"""Layers over segments: what the contract cannot say about them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.nn.base import cast_parameters
from seqjax.zoo import LAYERS, make
from seqjax.zoo.segment import ROWS

T = 9


def build(name, features=4, **options):
    options = {**LAYERS[name].smoke, **options}
    return cast_parameters(make(name, features, **options), jnp.float64)


def sequence(seed=0, features=4):
    return jax.random.normal(jax.random.key(seed), (1, T, features))


@pytest.mark.share(1)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.make.causal])
def test_streams_cut_anywhere(name, seed):
    """Random cuts, resets and masks: the stream equals every piece alone, in one call."""
    rng, layer, x = np.random.default_rng(seed), build(name), sequence(seed)
    resets, mask = jnp.asarray(rng.random((1, T)) < 0.2), jnp.asarray(rng.random((1, T)) < 0.8)
    run, h, outputs = jax.jit(lambda *given: layer(*given)), None, []
    for part in np.split(np.arange(T), np.sort(rng.integers(1, T, 2))):
        y, h = run(x[:, part], h, resets[:, part], mask[:, part])
        outputs.append(y)
    kept = np.flatnonzero(mask[0])
    starts = [t for t in kept if resets[0, t]]
    alone = [run(x[:, p]) for p in np.split(kept, np.searchsorted(kept, starts)) if len(p)]
    expected = jnp.zeros((1, T, layer.out_features))
    expected = expected.at[:, kept].set(jnp.concatenate([y for y, _ in alone], 1))
    assert jnp.allclose(jnp.concatenate(outputs, 1), expected, atol=1e-12)
    found, expected = layer.canonical(h), layer.canonical(alone[-1][1])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert jnp.allclose(a, b, atol=1e-12)


def outputs(layer, x, *given):
    return jax.jit(lambda layer, *given: layer(*given)[0])(layer, x, *given)


def test_infini_attention_is_attention_within_a_segment_and_where_its_gate_is_closed():
    layer = build("infini_transformer", length=T)
    plain = cast_parameters(make("attention", 4, heads=2, window=T), jnp.float64)
    for name in ("W_q", "W_k", "W_v", "W_o"):
        getattr(plain, name).kernel = getattr(layer, name).kernel
    x = sequence()
    assert jnp.allclose(outputs(layer, x), outputs(plain, x), atol=1e-12)
    layer, parts = build("infini_transformer"), x.reshape(3, 3, 4)  # segments of three
    layer.beta = layer.beta - 1e3
    assert jnp.allclose(outputs(layer, x), outputs(layer, parts).reshape(x.shape), atol=1e-12)


@pytest.mark.thorough
def test_rmt_aligns_the_last_segment():
    """Seven steps in segments of three: one, three and three, in one call or cut anywhere."""
    layer, x = build("rmt"), sequence()[:, :7]
    run = jax.jit(lambda layer, *given: layer(*given))
    y, h = run(layer, x, layer.aligned(1, 7, x.dtype))
    first, m = run(layer, x[:, :1], layer.aligned(1, 1, x.dtype))
    assert jnp.allclose(first, outputs(build("rmt", length=1), x[:, :1]), atol=1e-12)
    rest, end = run(layer, x[:, 1:], m)
    assert jnp.allclose(y, jnp.concatenate([first, rest], 1), atol=1e-12)
    for a, b in zip(jax.tree.leaves(h), jax.tree.leaves(end), strict=True):
        assert jnp.allclose(a, b, atol=1e-12)
    assert jnp.abs(y - run(layer, x)[0]).max() > 1e-3
    resets = jnp.zeros((1, 7), bool).at[0, 2].set(True)  # which goes to a whole segment
    y = outputs(layer, x, layer.aligned(1, 7, x.dtype), resets)
    assert jnp.allclose(y[:, 2:], outputs(layer, x[:, 2:]), atol=1e-12)
