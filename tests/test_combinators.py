"""Layers made of layers are what their formulas define, and keep every law of a layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.nn import Chain, Outputs, Parallel, Residual
from seqjax.nn.base import cast_parameters
from seqjax.nn.norms import Norm
from seqjax.testing import check_layer
from seqjax.zoo import make


def parts():
    rngs = nnx.Rngs(0)
    gru, lru, conv = make("gru", 4), make("lru", 4, state=2), make("qrnn", 4, window=2)
    return rngs, gru, lru, conv


def test_the_formulas():
    rngs, gru, lru, conv = parts()
    W = nnx.Linear(3, 4, rngs=rngs)
    layer = Chain(W, Residual(gru), jnp.tanh, Parallel(lru, Chain(conv, jax.nn.gelu)))
    layer = cast_parameters(layer, jnp.float64)
    W, residual, _, both = layer.modules
    gru, (lru, inner) = residual.modules[0], both.modules
    assert (layer.features, layer.out_features, both.out_features) == (3, 8, 8)

    @jax.jit  # compiled at once: a call of each part by itself is many programs
    def both_ways(x):
        z = W(x)
        z = jnp.tanh(z + gru(z)[0])
        expected = jnp.concatenate([lru(z)[0], jax.nn.gelu(inner.modules[0](z)[0])], axis=2)
        y, state = layer(x)
        first, middle = layer(x[:, :3])
        second, last = layer(x[:, 3:], middle)
        assert jax.tree.structure(last) == jax.tree.structure(state)
        summed = Parallel(gru, lru, join="sum")(z)[0]
        return [
            (y, expected),
            (y, jnp.concatenate([first, second], 1)),
            (summed, gru(z)[0] + lru(z)[0]),
            (nnx.Sequential(W, Outputs(gru))(x), gru(W(x))[0]),
        ]

    for found, expected in both_ways(jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 3)))):
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.thorough  # each by itself: tests/test_every_layer.py
def test_every_law_holds():
    _, gru, lru, _ = parts()
    norm = Norm(4)
    check_layer(Chain(Residual(Chain(norm, gru, features=4)), Parallel(lru, jnp.tanh, join="sum")))


@pytest.mark.parametrize(
    "made, message",
    [
        (lambda gru, W: Chain(), "made of layers, modules and functions"),
        (lambda gru, W: Chain(gru, 3), "made of layers, modules and functions"),
        (lambda gru, W: Chain(jnp.tanh, gru), "must be given features="),
        (lambda gru, W: Chain(gru, W), "Linear does not take 4 features"),
        (lambda gru, W: Chain(W, gru, gru), None),
        (lambda gru, W: Chain(gru, jnp.tanh, make("gru", 5)), "GRU takes 5 features, got 4"),
        (lambda gru, W: Residual(W), "keeps the width"),
        (lambda gru, W: Parallel(gru, make("gru", 4, hidden=3), join="sum"), r"got \[4, 3\]"),
        (lambda gru, W: Parallel(gru, join="stack"), "unknown join of Parallel 'stack'"),
    ],
)
def test_what_does_not_fit_is_named(made, message):
    gru, W = make("gru", 4), nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    if message is None:
        assert made(gru, W).out_features == 4
    else:
        with pytest.raises((ValueError, TypeError), match=message):
            made(gru, W)
