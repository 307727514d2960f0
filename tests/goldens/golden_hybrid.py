"""Adapter of mLSTM with a sigmoid input gate."""

from functools import partial

import jax
import jax.numpy as jnp

from seqjax.layers.linear_attention.mlstm import bounded_attention
from seqjax.ops.linear_attention import LINEAR_ATTENTION
from seqjax.ops.stabilised_attention import State


def siging(inputs, meta, *, evaluator):
    B, _, H, K = inputs["q"].shape
    C = jnp.zeros((B, H, K, inputs["v"].shape[3]))
    attend = partial(
        bounded_attention,
        scale=K**-0.5,
        normalise=meta["normalize"],
        eps=meta["eps"],
        resets=None,
        mask=None,
        evaluator=evaluator,
    )
    names = ("q", "k", "v", "i")
    log_f = jax.nn.log_sigmoid(inputs["f"])
    state = State(C, C[..., 0], C[..., 0, 0])
    return {"h": jax.vmap(attend)(*(inputs[n] for n in names), log_f, state)[0]}


ADAPTERS = {
    "mlstm_siging_parallel": {
        name: partial(siging, evaluator=name) for name in LINEAR_ATTENTION.evaluators
    },
}
