"""ZAYA1: what the numbers of its original code do not show."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.hf.zaya import Routed
from seqjax.nn.activations import silu
from seqjax.nn.base import cast_parameters


def test_a_token_may_go_to_no_expert():
    D, R, count = 4, 3, 2
    options = dict(experts=count, first=False, norm_eps=1e-6, rngs=nnx.Rngs(0))
    layer = Routed(D, 5, R, silu, **options)
    layer.choice_bias[...] = jnp.array([0.0, 0.1, 0.05])
    layer.old.bias[...] = jnp.arange(4.0) / 10
    layer = cast_parameters(layer, jnp.float64)
    x = np.random.default_rng(0).normal(size=(2, 9, D + R))
    y, went = layer(jnp.asarray(x)), []
    for at in np.ndindex(2, 9):
        z, r = x[at][:D] / np.sqrt(np.mean(x[at][:D] ** 2) + 1e-6), x[at][D:]
        r = layer.W(z) + r
        p = jax.nn.softmax(layer.mlp(r))
        e = int(np.argmax(p + np.array([0.0, 0.1, 0.05])))
        went.append(e)
        W = layer.experts
        new = 0 if e == count else p[e] * (silu(z @ W.W_1[e]) * (z @ W.W_2[e])) @ W.W_3[e]
        expected = np.concatenate([new + x[at][:D] + np.arange(4) / 10, r])
        np.testing.assert_allclose(y[at], expected, atol=1e-7)
    assert set(went) == {0, 1, 2}
