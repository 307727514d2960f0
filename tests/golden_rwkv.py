"""Goldens answered by the RWKV layers and the other gated attention layers."""

import jax
import jax.numpy as jnp
from flax import nnx
from golden_layers import build, by_evaluator
from golden_tools import with_parameters

from seqjax.layers.linear_attention.aaren import Means
from seqjax.layers.linear_attention.rwkv_parts import ChannelMixing

SCAN = ("sequential", "associative", "chunked")
MATRIX = ("naive", "chunked")


def flat(inputs, *names):
    return jnp.stack([inputs[name].reshape(-1) for name in names])


def kernels(inputs, **names):
    return {f"{ours}.kernel": inputs[f"{theirs}.weight"].T for ours, theirs in names.items()}


def rwkv4(inputs, meta, *, evaluator):
    D = len(inputs["w"])
    zeros = {f"W_{j}.kernel": jnp.zeros((D, D)) for j in "kvro"}
    values = {"w": inputs["w"], "u": inputs["u"], "mu": jnp.zeros((3, D))} | zeros
    layer = build("rwkv4", D, values)

    def wkv(k, v, h):
        return layer.wkv(k, v, h, layer.remembered(), evaluator=evaluator)

    k = inputs["k"]
    h = jax.tree.map(lambda s: jnp.broadcast_to(s[None], (len(k), *s.shape)), layer.remembered())
    if "num0" in inputs:
        h = Means(inputs["max0"], jnp.stack([inputs["num0"], inputs["den0"]], -1))
    o, h = jax.vmap(wkv)(k, inputs["v"], h)
    return {"o": o, "num": h.sums[..., 0], "den": h.sums[..., 1], "max": h.m}


def rwkv_weights(inputs, heads):
    values = kernels(inputs, W_r="receptance", W_k="key", W_v="value", W_o="output", W_g="gate")
    for name in ("weight", "bias"):
        values[f"norm.{name}"] = inputs[f"ln_x.{name}"].reshape(heads, -1)
    return values | {"w": inputs["time_decay"].reshape(-1), "u": inputs["time_faaaa"]}


def rwkv5(inputs, meta, *, evaluator):
    x, heads = inputs["x"], len(inputs["time_faaaa"])
    values = rwkv_weights(inputs, heads)
    values["mu"] = 1 - flat(inputs, *(f"time_mix_{j}" for j in "rkvg"))
    layer = build("rwkv5", x.shape[2], values, heads=heads)
    return {"y": layer(x, evaluator=evaluator)[0]}


def rwkv6(inputs, meta, *, evaluator):
    x, heads = inputs["x"], len(inputs["time_faaaa"])
    order = jnp.array([3, 1, 2, 4, 0])  # theirs w, k, v, r, g to ours r, k, v, g, w
    A, B = inputs["time_maa_w1"], inputs["time_maa_w2"]
    values = rwkv_weights(inputs, heads) | {
        "mu_x": inputs["time_maa_x"].reshape(-1),
        "mu": flat(inputs, *(f"time_maa_{j}" for j in "rkvgw")),
        "A": A.reshape(len(A), 5, -1)[:, order].reshape(A.shape),
        "B": B[order],
        "w_shift.A": inputs["time_decay_w1"],
        "w_shift.B": inputs["time_decay_w2"],
    }
    ranks = B.shape[1], inputs["time_decay_w1"].shape[1]
    layer = build("rwkv6", x.shape[2], values, heads=heads, ranks=ranks)
    return {"y": layer(x, evaluator=evaluator)[0]}


def channel_mixing(inputs, meta):
    x, code = inputs["x"], meta["options"]["version"]
    version = {"x052": 4, "x060": 6, "x070": 7}[code]  # 5.2 has the parameters of 4
    names = {4: ("time_mix_k", "time_mix_r"), 6: ("time_maa_k", "time_maa_r"), 7: ("x_k",)}
    values = {"mu": flat(inputs, *names[version])}
    values |= kernels(inputs, W_k="key", W_v="value")
    if version != 7:
        values |= kernels(inputs, W_r="receptance")
    C, inner = x.shape[2], len(inputs["key.weight"])
    layer = with_parameters(ChannelMixing(C, version, inner=inner, rngs=nnx.Rngs(0)), values)
    return {"y": jax.vmap(lambda x: layer(x, jnp.zeros((1, C)))[0])(x)}


ADAPTERS = {
    "rwkv4": by_evaluator(rwkv4, *SCAN),
    "rwkv5_tmix": by_evaluator(rwkv5, *MATRIX),
    "rwkv6_tmix": by_evaluator(rwkv6, *MATRIX),
    "rwkv_cmix": {"whole": channel_mixing},
}
