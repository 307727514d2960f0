"""Goldens answered by the RWKV layers and the other gated attention layers."""

import jax
import jax.numpy as jnp
from flax import nnx
from golden_layers import build, by_evaluator
from golden_tools import with_parameters, without_resets

from seqjax.layers.linear_attention.aaren import Means
from seqjax.layers.linear_attention.fox import FoX
from seqjax.layers.linear_attention.gateloop import SimpleGateLoop, gate_loop
from seqjax.layers.rwkv.parts import ChannelMixing
from seqjax.ops.log_linear_attention import Levels, log_linear_attention
from seqjax.ops.look_back import look_back
from seqjax.ops.slot_attention import slot_attention

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

    k = inputs["k"]
    h = jax.tree.map(lambda s: jnp.broadcast_to(s[None], (len(k), *s.shape)), layer.remembered())
    if "num0" in inputs:
        h = Means(inputs["max0"], jnp.stack([inputs["num0"], inputs["den0"]], -1))
    o, h = without_resets(layer.wkv, evaluator)(k, inputs["v"], h)
    return {"o": o, "num": h.sums[..., 0], "den": h.sums[..., 1], "max": h.m}


def rwkv_weights(inputs, heads):
    values = kernels(inputs, W_r="receptance", W_k="key", W_v="value", W_o="output", W_g="gate")
    for name in ("weight", "bias"):
        values[f"norm.{name}"] = inputs[f"ln_x.{name}"].reshape(heads, -1)
    return values | {"w": inputs["time_decay"].reshape(-1), "u": inputs["time_faaaa"]}


def rwkv5(inputs, meta, *, evaluator):
    x, heads = inputs["x"], len(inputs["time_faaaa"])
    meta["options"].expect(head_size=x.shape[2] // heads)
    values = rwkv_weights(inputs, heads)
    values["mu"] = 1 - flat(inputs, *(f"time_mix_{j}" for j in "rkvg"))
    layer = build("rwkv5", x.shape[2], values, heads=heads)
    return {"y": layer(x, evaluator=evaluator)[0]}


def rwkv6(inputs, meta, *, evaluator):
    x, heads = inputs["x"], len(inputs["time_faaaa"])
    meta["options"].expect(head_size=x.shape[2] // heads)
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
    y, _ = without_resets(layer, None)(x, jnp.zeros((len(x), 1, C)))
    return {"y": y}


def gateloop_op(inputs, meta, *, evaluator):
    q, k, v, a = (inputs[name] for name in "qkva")
    S = jnp.zeros((1, q.shape[2], v.shape[2]), complex)

    def one(q, k, v, a):
        log_r, angle = jnp.log(jnp.abs(a))[:, None, None], jnp.angle(a)[:, None, None]
        q, k, v = (z[:, None] for z in (q, k, v))
        flags = dict(start=S, resets=None, mask=None, evaluator=evaluator)
        return gate_loop(q, k, v, log_r, angle, S, **flags)[0][:, 0]

    return {"o": jax.vmap(one)(q, k, v, a)}


def gateloop(inputs, meta, *, evaluator):
    x, o = inputs["x"], meta["options"]
    re_im = inputs["to_a.0.weight"], inputs["to_a.0.bias"]
    parts = [z.reshape(o["heads"], 2, *z.shape[1:]).swapaxes(0, 1) for z in re_im]
    W_a, b_a = (z[:1] if o["ablate_complex"] else z for z in parts)
    qkv = jnp.split(inputs["to_qkv.weight"], 3)
    values = {f"W_{j}.kernel": W.T for j, W in zip("qkv", qkv)} | {
        "W_g.kernel": inputs["to_gates.0.weight"].T,
        "W_o.kernel": inputs["to_out.weight"].T,
        "W_a.kernel": W_a.reshape(-1, x.shape[2]).T,
        "b_a": b_a.reshape(-1),
    }
    if o["sub_ln"]:
        values |= {f"norm.{n}": inputs[f"maybe_sub_ln.{n}"] for n in ("weight", "bias")}
    layer = build(
        "gateloop",
        x.shape[2],
        values,
        heads=o["heads"],
        inner=len(qkv[0]),
        transition="modulus_real" if o["ablate_complex"] else "modulus",
        norm=o["sub_ln"],
    )
    return {"y": layer(x, evaluator=evaluator)[0]}


def gateloop_simple(inputs, meta, *, evaluator):
    x, backward = inputs["x"], meta["options"]["reverse"]
    values = {"norm.weight": inputs["norm.gamma"], "W.kernel": inputs["to_qkva.0.weight"].T}
    layer = with_parameters(SimpleGateLoop(x.shape[2], rngs=nnx.Rngs(0)), values)
    x = x[:, ::-1] if backward else x
    y, h = layer(x, inputs.get("h0"), evaluator=evaluator)
    return {"y": y[:, ::-1]} if backward else {"y": y, "h": h}


def gsa(inputs, meta, *, evaluator):
    q, k, v, s, log_f = (inputs[name] for name in ("q", "k", "v", "s", "g"))
    groups = q.shape[2] // k.shape[2]
    assert meta.get("options", {}).get("gqa", groups) == groups
    state = (inputs["hk0"], inputs["hv0"]) if "hk0" in inputs else None
    options = dict(scale=meta["scale"], evaluator=evaluator)
    o, (K, V) = slot_attention(q, k, v, s, log_f, state, **options)
    return {"o": o} if groups > 1 else {"o": o, "hk": K, "hv": V}


def path_attention(inputs, meta):
    q, k, v, g, w, beta = (inputs[name] for name in ("q", "k", "v", "g", "w", "beta"))
    g = g * meta["scale"]  # that reference scales the forget gates too
    meta["options"].ignore("chunk_size")
    T, heads, K = q.shape[1:]
    options = dict(heads=heads, kv_heads=k.shape[2], window=T, scale=meta["scale"], path=True)
    layer = nnx.eval_shape(lambda: FoX(heads * K, rngs=nnx.Rngs(0), **options))

    def one(q, *items):
        return look_back(layer.attend, q, items, layer.initial().cache)[0]

    return {"o": jax.vmap(one)(q, k, v, g, w, beta)}


def log_linear(inputs, meta, *, evaluator):
    q, k, v, g, scales = (inputs[name] for name in ("q", "k", "v", "g", "level_scales"))
    S = jnp.zeros((scales.shape[3], *q.shape[2:], v.shape[3]))

    def one(*xs):
        return log_linear_attention(*xs, Levels(S, jnp.int32(0)), evaluator=evaluator)[0]

    return {"o": jax.vmap(one)(q, k, v, g, scales)}


ADAPTERS = {
    "rwkv4": by_evaluator(rwkv4, *SCAN),
    "rwkv5_tmix": by_evaluator(rwkv5, *MATRIX),
    "rwkv6_tmix": by_evaluator(rwkv6, *MATRIX),
    "gateloop_op": by_evaluator(gateloop_op, *MATRIX),
    "gateloop_attention": by_evaluator(gateloop, *MATRIX),
    "gateloop_simple": by_evaluator(gateloop_simple, "sequential", "primitive"),
    "gsa": by_evaluator(gsa, *MATRIX),
    "path_attn": {"whole": path_attention},
    "log_linear_attn": by_evaluator(log_linear, "sequential", "chunked"),
    "rwkv_cmix": {"whole": channel_mixing},
}
