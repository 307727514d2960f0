"""Element-wise recurrences against their equations where no golden reaches: QRNN of width 3."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.nn.base import cast_parameters
from seqjax.zoo import make


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def test_slstm_without_mixing_is_one_whose_units_do_not_meet():
    mixed, apart = (
        cast_parameters(make("slstm", 3, mixing=mixing, rngs=nnx.Rngs(0)), jnp.float64)
        for mixing in (True, False)
    )
    x = jax.random.normal(jax.random.key(1), (2, 5, 3))
    assert apart.R is None and not mixed.R[...].any()  # starts at zero
    for got, expected in zip(jax.tree.leaves(apart(x)), jax.tree.leaves(mixed(x)), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)
    inside = make("xlstm", 4, pattern=("slstm",), mixing=False)
    assert inside.layers[0].cell.R is None


@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_qrnn_is_its_equations(pooling):
    """arXiv:1611.01576 eq. 1 and 3 to 5, step by step: columns of W are the newest input first."""
    layer = make("qrnn", 2, hidden=3, window=3, pooling=pooling, rngs=nnx.Rngs(0))
    layer = cast_parameters(layer, jnp.float64)
    x = np.asarray(jax.random.normal(jax.random.key(1), (5, 2)))
    W, b = np.asarray(layer.W.kernel[...]), np.asarray(layer.W.bias[...]) + 0.0
    c, past, expected = np.zeros(3), np.zeros((2, 2)), []
    for x_t in x:
        gates = np.split(np.concatenate([x_t, past[1], past[0]]) @ W + b, len(b) // 3)
        z, f = np.tanh(gates[0]), sigmoid(gates[1])
        c = f * c + (sigmoid(gates[3]) if pooling == "ifo" else 1 - f) * z
        expected.append(c if pooling == "f" else sigmoid(gates[2]) * c)
        past = np.stack([past[1], x_t])
    y, h = layer(jnp.asarray(x)[None])
    np.testing.assert_allclose(y[0], expected, atol=1e-12)
    np.testing.assert_allclose(h.c[0], c, atol=1e-12)
    np.testing.assert_allclose(h.window[0], x[-2:], atol=1e-12)
