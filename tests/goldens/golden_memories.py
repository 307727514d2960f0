"""Goldens of memories beside each other, and of attention that corrects its values."""

import jax
import jax.numpy as jnp
from golden_layers import build, by_evaluator
from golden_linear_attention import taps

from seqjax.core.flow import Carry, Flow
from seqjax.layers.fast_weights.deltaformer import delta_attention
from seqjax.ops.look_back import empty


def mom(inputs, meta, *, evaluator):
    x, memories, one = inputs["x"], meta["num_memories"], meta["single_kv_proj"]
    kinds = {"W_k": "k", "W_v": "v", "W_beta": "b", "W_a": "a"}
    values = {"W_q.kernel": inputs["w_q_proj.weight"].T, "W_r.kernel": inputs["w_gate.weight"].T}
    for ours, kind in kinds.items():
        names = [] if one else [f"w_{kind}_proj.{m}.weight" for m in range(memories)]
        names += [f"w_shared_{kind}.weight"] if one or meta["shared_mem"] else []
        values[ours] = jnp.stack([inputs[name].T for name in names])
    values |= {"A_log": inputs["w_A_log"], "dt_bias": inputs["w_dt_bias"]}
    values |= taps(inputs, *(f"{n}_conv1d" for n in "qkv"))
    values |= {"norm.weight": inputs["w_o_norm.weight"], "W_o.kernel": inputs["w_o_proj.weight"].T}
    if "w_g_proj.weight" in inputs:
        values["W_g.kernel"] = inputs["w_g_proj.weight"].T
    layer = build(
        "mom",
        x.shape[2],
        values,
        heads=meta["num_heads"],
        key_size=meta["head_dim"],
        value_size=meta["head_v_dim"],
        memories=memories,
        top=meta["topk"],
        shared_memory=meta["shared_mem"],
        one_projection=one,
        output_gate="w_g_proj.weight" in inputs,
        conv=meta["conv_size"],
        conv_bias="conv.bias" in values,
    )
    return {"y": layer(x, evaluator=evaluator)[0], "router_logits": layer.W_r(x)}


def deltaformer(inputs, meta):
    q, k, v = (inputs[name] for name in "qkv")
    beta = inputs.get("beta", jnp.ones(q.shape[:3], q.dtype))
    cache = empty((jnp.zeros((q.shape[1] - 1, *q.shape[2:])),) * 2)

    def one(*xs):
        return delta_attention(*xs, Carry(cache, cache), Flow(), scale=q.shape[3] ** -0.5)[0]

    return {"o": jax.vmap(one)(q, k, v, beta)}


ADAPTERS = {
    "mom_layer": by_evaluator(mom, "naive", "chunked"),
    "deltaformer": {"blocks": deltaformer},
}
