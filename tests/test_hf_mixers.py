"""Where a reset sends the mixers that only released models have."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.hf.minimax import LightningAttention
from seqjax.hf.parts import GatedShortConv, Parallel
from seqjax.layers.attention.attention import Attention
from seqjax.layers.ssm.mamba2 import Mamba2
from seqjax.nn.base import cast_parameters

MIXERS = {
    "parallel": partial(
        Parallel,
        (partial(Mamba2, 4, heads=2, state=2, conv=2), partial(Attention, 4, heads=2, window=3)),
        (0.9, 1.1),
        (0.7, 1.3),
    ),
    "gated short conv": partial(GatedShortConv, 4),
    "lightning attention": partial(LightningAttention, 4, heads=2, head_size=2),
}


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("name", MIXERS)
def test_a_reset_goes_to_the_start_that_was_learned(name):
    layer = MIXERS[name](rngs=nnx.Rngs(0))
    layer.learn_initial()
    graph, params, rest = nnx.split(cast_parameters(layer, jnp.float64), nnx.Param, ...)
    moved = jax.tree_util.tree_map_with_path(
        lambda path, p: p + float("h0" in jax.tree_util.keystr(path)), params
    )
    layer = nnx.merge(graph, moved, rest)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 4)))
    y, h = layer(x, resets=jnp.zeros((1, 7), bool).at[0, 3].set(True))
    fresh, end = layer(x[:, 3:])
    same = partial(np.testing.assert_allclose, atol=1e-12)
    jax.tree.map(same, (y[:, 3:], h), (fresh, end))
    zeros = jax.tree.map(jnp.zeros_like, layer.batch_state(1, jnp.float64))
    assert jnp.abs(layer(x[:, 3:], zeros)[0] - fresh).max() > 1e-3
