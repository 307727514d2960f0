"""Inkling and its successors: what the numbers of their original code do not show."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_hf import in_float64

from scripts.released import FOLDER, save, weights
from seqjax.hf import read
from seqjax.hf.depth import DepthConnection
from seqjax.hf.inkling2 import Clip, DynamicConv
from seqjax.nn.base import cast_parameters

D = 4


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_taps_made_by_the_step():
    heads, width, inputs, T = 2, 3, 5, 7
    conv = DynamicConv(D, inputs, width, heads=heads, scale=0.6, rngs=nnx.Rngs(0))
    conv = cast_parameters(conv, jnp.float64)
    x = normal(1, T, D + inputs)
    z, s = x[:, :D], x[:, D:]
    w, U = np.asarray(conv.w[...]), np.asarray(conv.U.kernel[...])
    expected = z.copy()
    for t in range(T):
        for c in range(D):
            for n in range(min(width, t + 1)):
                tap = w[n, c] + s[t] @ U[:, (c // (D // heads)) * width + n]
                expected[t, c] += tap * z[t - n, c]
    np.testing.assert_allclose(conv(x[None])[0][0], 0.6 * expected, atol=1e-12)


def test_vectors_are_cut_off_by_their_length():
    u = np.array([[[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]])
    clip = cast_parameters(Clip(2.0), jnp.float64)
    y, back = jax.vjp(clip, jnp.asarray(u))
    np.testing.assert_allclose(y[0], [[1.2, 1.6], [0.3, 0.4], [0.0, 0.0]], rtol=1e-6)
    assert np.isfinite(back(jnp.ones_like(y))[0]).all()


def test_sums_of_blocks_are_attended_to():
    """Branches in blocks of two, against lists of the sums that are over."""
    layers, blocks = 5, 3
    made = [
        DepthConnection(
            D, over=-(-i // 2), first=i % 2 == 0, attends=i > 0, given=2, queries=1 + i % 2,
            eps=1e-6, rngs=nnx.Rngs(0),
        )
        for i in range(layers)
    ]  # fmt: skip
    made = cast_parameters(nnx.List(made), jnp.float64)
    x = normal(0, 2, D)
    stream, over, current = np.pad(x, ((0, 0), (0, blocks * D))), [], x

    def rms(v):
        return v / np.sqrt(np.mean(v * v, axis=-1, keepdims=True) + 1e-6)

    for i, one in enumerate(made):
        given, more = one.given(jnp.asarray(stream))
        expected = [rms(current)] * 2
        if one.depth is not None:
            w = normal(i + 1, 1 + i % 2, D)
            one.depth.w[...] = jnp.asarray(w)
            given, more = one.given(jnp.asarray(stream))
            u, expected = np.stack([rms(v) for v in [current, *over]]), []
            for query in (w[0], w[-1]):
                weight = np.exp(u @ query / D**0.5)
                z = np.sum((weight / weight.sum(0))[..., None] * u, axis=0)
                expected.append(rms(z))
        np.testing.assert_allclose(given, np.concatenate(expected, axis=1), atol=1e-12)
        y = normal(10 + i, 2, D)
        stream = one.joined(jnp.asarray(stream), jnp.asarray(y), more)
        if i % 2 == 0:
            over, current = [*over, current], y
        else:
            current = current + y
    np.testing.assert_allclose(stream, np.concatenate([current, *over], axis=1), atol=1e-12)


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("name", ["inkling", "inkling2-options", "inkling2_loop-options"])
def test_resets_and_masks_reach_every_pass(name, tmp_path):
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    folder = save(tmp_path, stored["config"], weights(stored["tensors"]))
    model, tokens = in_float64(read(folder, context=16)), jnp.asarray(stored["tokens"])
    resets = jnp.zeros(tokens.shape, bool).at[:, 4].set(True)
    mask = jnp.ones(tokens.shape, bool).at[:, 6].set(False)
    y, h = model(tokens, resets=resets, mask=mask)
    left, end = model(jnp.delete(tokens[:, 4:], 2, axis=1))
    same = partial(np.testing.assert_allclose, atol=1e-9)
    jax.tree.map(same, (jnp.delete(y[:, 4:], 2, axis=1), h), (left, end))
