"""Linear attention that is not causal: the self-attention of an encoder, and cross-attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.nn.base import cast_parameters
from seqjax.zoo import make

T, S, D, H = 9, 6, 4, 2
ROWS = {
    "linear_transformer": dict(heads=H, key_size=3, value_size=5),
    "performer": dict(heads=H, count=5),
    "rfa": dict(heads=H, count=3),
    "cosformer": dict(heads=H, length=2 * T),
}


def layer_of(name, **options):
    layer = make(name, D, **ROWS[name], **options, rngs=nnx.Rngs(0))
    return cast_parameters(layer, jnp.float64)


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def quadratic(layer, x, context, place, context_place, seen):
    """y [T, features] from the similarities of all steps, of which those seen [T, S] count."""
    q, (_, k, v) = layer.project(x)[0], layer.project(context)
    weight = np.einsum("thk,shk->hts", q, k) * seen
    if hasattr(layer, "length"):
        apart = np.asarray(place)[:, None] - np.asarray(context_place)
        weight = weight * np.cos(np.pi * apart / (2 * layer.length))
    total = weight.sum(-1, keepdims=True)
    divisors = {
        "add": total + layer.eps,
        "max": np.maximum(total, layer.eps),
        "abs": np.maximum(np.abs(total), layer.eps),
    }
    y = np.einsum("hts,shv->thv", weight / divisors[layer.denominator], v)
    return layer.W_o(jnp.asarray(y).reshape(len(y), -1))


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("name", ROWS)
def test_an_encoder_sees_all_of_its_segment(name):
    layer, x = layer_of(name, causal=False), draw(0, 2, T, D)
    keep = np.ones((2, T), bool)
    keep[0, [0, 3, 4, 8]] = keep[1, 5] = False
    reset = np.zeros((2, T), bool)
    reset[0, [2, 3, 5]] = reset[1, [4, 6]] = True  # one at a masked step, one right after one

    for resets, mask in ((None, None), (None, keep), (reset, None), (reset, keep)):
        flags = [None if z is None else jnp.asarray(z) for z in (resets, mask)]
        for evaluator in ("naive", "chunked"):
            y, h = layer(x, None, *flags, evaluator=evaluator)
            assert h == ()
            for b in range(2):
                kept = keep[b] if mask is not None else np.ones(T, bool)
                forget = reset[b] & kept if resets is not None else np.zeros(T, bool)
                segment = np.cumsum(forget)
                place = [np.sum(kept[:t] & (segment[:t] == segment[t])) for t in range(T)]
                seen = (segment[:, None] == segment) & kept
                expected = quadratic(layer, x[b], x[b], place, place, seen)
                np.testing.assert_allclose(y[b][kept], expected[kept], atol=1e-10)


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("name", ROWS)
def test_cross_attention_looks_at_all_of_the_context(name):
    layer, x, context = layer_of(name), draw(0, 2, T, D), draw(1, 2, S, D)
    mask = jnp.asarray(np.array([[1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 1, 1]], bool))
    dirty = jnp.where(mask[..., None], context, jnp.nan)
    for given, keep in ((context, None), (dirty, mask)):
        y = layer.cross(x, given, keep)
        gradient = jax.grad(lambda c, keep=keep: jnp.sum(layer.cross(x, c, keep)))(given)
        assert jnp.isfinite(gradient).all()
        for b in range(2):
            kept = np.ones(S, bool) if keep is None else np.asarray(keep[b])
            place = np.cumsum(kept) - kept
            expected = quadratic(layer, x[b], context[b], np.arange(T), place, kept[None])
            np.testing.assert_allclose(y[b], expected, atol=1e-10)
    whole = layer_of(name, causal=False)
    np.testing.assert_allclose(layer.cross(x, x), whole(x)[0], atol=1e-10)


@pytest.mark.share(1)
@pytest.mark.parametrize("name", ROWS)
def test_nothing_to_look_at_and_16_bits(name):
    layer = make(name, D, **ROWS[name], causal=False, rngs=nnx.Rngs(0))
    low = draw(0, 2, T, D).astype(jnp.bfloat16)
    assert layer(low)[0].dtype == layer.cross(low, low).dtype == jnp.bfloat16
    assert layer(low[:, :0])[0].shape == (2, 0, D)
    y = layer.cross(low, low[:, :0])
    np.testing.assert_array_equal(y, layer.cross(low, low, jnp.zeros((2, T), bool)))


def test_what_has_no_such_form_says_so():
    with pytest.raises(ValueError, match="gate of RFA forgets the past"):
        layer_of("rfa", gate=True, causal=False)
    with pytest.raises(ValueError, match="no cross-attention"):
        layer_of("rfa", gate=True).cross(draw(0, 1, T, D), draw(0, 1, S, D))
    layer = layer_of("performer")
    with pytest.raises(ValueError, match=r"x \[B, T, 4\] over a context \[B, S, 4\], got"):
        layer.cross(draw(0, 1, T, D), draw(0, 2, S, D))
    with pytest.raises(ValueError, match=r"mask bool \[B, S\] = \[1, 6\], got"):
        layer.cross(draw(0, 1, T, D), draw(0, 1, S, D), jnp.ones((1, T), bool))
