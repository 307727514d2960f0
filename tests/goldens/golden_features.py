"""Adapters of the goldens of linear attention with feature maps, decays and gates.

They rename weights and reshape; a reference that looks at the whole sequence is answered by an op
run to the end and read by every query.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from golden_layers import build
from golden_ops import key_scale
from golden_tools import with_parameters, without_resets

import seqjax
from seqjax import ops
from seqjax.layers.linear_attention.retnet import Retention, xpos
from seqjax.layers.linear_attention.transnormer_llm import GatedNormAttention, head_slopes
from seqjax.nn import feature_maps as maps

ATTENTION = tuple(name for name in ops.OPS["linear_attention"].evaluators if name != "sequential")


def by_evaluators(adapter, names=ATTENTION):
    return {name: partial(adapter, evaluator=name) for name in names}


def only(adapter):
    """An adapter of what is computed in one way only."""
    return {"function": lambda inputs, meta: adapter(inputs, meta)}


def rows(W):
    """A weight [in, out], as ours, of a torch one."""
    return W.T


def dense(inputs, names, suffix="proj"):
    """Ours -> {kernel, bias} of torch linears called {theirs}_proj."""
    found = {}
    for ours, theirs in names.items():
        name = f"{theirs}_{suffix}" if suffix else theirs
        found[f"{ours}.kernel"] = rows(inputs[f"{name}.weight"])
        if f"{name}.bias" in inputs:
            found[f"{ours}.bias"] = inputs[f"{name}.bias"]
    return found


def unused(size, *names):
    """Zeros for linear maps [size, size] that the reference leaves out."""
    shapes = {"kernel": (size, size), "bias": (size,)}
    return {f"{name}.{w}": jnp.zeros(shape) for name in names for w, shape in shapes.items()}


QKVO = {"W_q": "q", "W_k": "k", "W_v": "v", "W_o": "out"}


def attend(q, k, v, *, causal=True, state=None, eps=0.0, **options):
    """Normalised linear attention; if not causal, every query reads the state at the end."""
    run = partial(seqjax.linear_attention, normalise=True, eps=eps, **options)
    if causal:
        return run(q, k, v, None, state)[0]
    end = run(q, k, v, None, state)[1]
    return run(q, jnp.zeros_like(k), jnp.zeros_like(v), None, end)[0]


# ---- random features ----------------------------------------------------------------------------


def performer(x, meta, evaluator):
    o = meta["options"]
    W, scaled = x["proj"][None], {name: x[name] * x[name].shape[-1] ** -0.25 for name in "qk"}
    if o["kernel"] == "relu":
        phi_q, phi_k = (maps.random_relu(scaled[name], W) for name in "qk")
    else:
        phi_q = maps.favor(scaled["q"], W, eps=1e-4, stabilise="query")
        phi_k = maps.favor(scaled["k"], W, eps=1e-4, stabilise="sequence")
    B, _, H, M = phi_k.shape
    o.expect(M=M)
    # the causal form adds 1e-6 to the sum of the keys' features: a sum that starts there
    state = (jnp.zeros((B, H, M, x["v"].shape[-1])), jnp.full((B, H, M), 1e-6))
    y = attend(
        phi_q,
        phi_k,
        x["v"],
        causal=o["causal"],
        state=state if o["causal"] else None,
        evaluator=evaluator,
    )
    return {"phi_q": phi_q, "phi_k": phi_k, "o": y}


def random_features(x, meta):
    o, W = meta["options"], jnp.swapaxes(x["omega"], 0, 1)[None]
    kind, options = o["kind"], {"count": W.shape[1]}
    if "softmax_temp" in o:
        options["temperature"] = 1 / o["softmax_temp"]
    if kind == "GeneralizedRandomFeatures":
        name, options = "random_relu", {"temperature": 1.0, "eps": 0.0} | options
    elif kind == "Favor":
        name, options = "favor+-", options | {"stabilise": "norm" if o.get("stabilize") else "none"}
    else:
        smoothing = o.get("smoothing", 1.0) if kind.startswith("Smoothed") else 0.0
        name, options = "fourier", options | {"smoothing": smoothing}
    K = x["x"].shape[-1]
    phi = nnx.eval_shape(lambda: maps.make_map((name, options), 1, K, rngs=nnx.Rngs(0)))
    o.expect(n_dims=phi.size)
    phi = jax.vmap(with_parameters(phi, {"W": W}))(x["x"])
    if name != "fourier":
        return {"phi": phi}
    sin, cos, rest = jnp.split(phi, [W.shape[1], 2 * W.shape[1]], axis=-1)
    return {"phi": jnp.concatenate([cos, sin, rest], axis=-1)}


def rfa(x, meta, evaluator):
    o, (heads, count, K) = meta["options"], x["random_matrices"].shape
    parallel, ratio = o["mode"] == "masked", 0.1 * count**0.5  # its features over ours
    layer = build(
        "rfa",
        heads * K,
        unused(heads * K, *QKVO) | {"phi.R": x["random_matrices"], "phi.sigma": x["sigma"]},
        heads=heads,
        count=count,
        tau=o["tau"],
        denominator="abs" if parallel else "max",
        eps=(1e-3 if parallel else 1.0) / ratio**2,
    )
    phi_q, phi_k = (jax.vmap(layer.phi)(x[name]) for name in "qk")
    state = jnp.zeros((len(x["q"]), heads, 2 * count, K + 1))
    if "S0" in x:
        state = jnp.concatenate([x["S0"], x["z0"][..., None]], -1) / ratio
    y, h = without_resets(layer.attend, evaluator)(phi_q, phi_k, x["v"], state)
    found = {"phi_q": phi_q * ratio, "phi_k": phi_k * ratio, "o": y}
    return found if parallel else found | {"S": h[..., :-1] * ratio, "z": h[..., -1] * ratio}


def dpfp(x, meta):
    return {"phi": maps.dpfp(x["x"], meta["options"]["nu"])}


# ---- cosFormer, Based, ReBased ------------------------------------------------------------------


def cosformer(x, meta, evaluator):
    o, (_, length, features) = meta["options"], x["x"].shape
    options = dict(heads=o["heads"], length=length, eps=1e-6, causal=o["causal"])
    layer = build("cosformer", features, dense(x, QKVO), **options)
    return {"y": layer(x["x"], evaluator=evaluator)[0]}


def based_attn(x, meta, evaluator, feature_map="taylor"):
    named = feature_map, {"temperature": 1 / key_scale(x, meta)}
    phi = maps.make_map(named, 1, x["q"].shape[-1], rngs=None)
    q, k = (jax.vmap(phi)(x[n]) for n in "qk")
    if meta["normalize"]:
        return {"o": attend(q, k, x["v"], eps=1e-6, evaluator=evaluator)}
    return {"o": seqjax.linear_attention(q, k, x["v"], evaluator=evaluator)[0]}


def based_layer(x, meta, evaluator):
    o = meta["options"]
    layer = build(
        "linear_transformer",
        x["x"].shape[2],
        dense({k.replace("out_proj", "proj_out"): v for k, v in x.items()}, PROJ, suffix=""),
        heads=o["heads"],
        key_size=o["feature_dim"],
        value_size=o["head_dim"],
        feature_map="taylor",
        eps=1e-12,
        bias=False,
    )
    phi_q = jax.vmap(lambda z: layer.project(z)[0])(x["x"])
    return {"y": layer(x["x"], evaluator=evaluator)[0], "phi_q": phi_q}


PROJ = {f"W_{name[0]}": f"proj_{name}" for name in ("q", "k", "v", "out")}

# ---- retention, NormAttention -------------------------------------------------------------------


def retnet(x, meta, evaluator):
    o, features = meta["options"], x["x"].shape[2]
    recurrent = o["mode"] == "recurrent"
    layer = with_parameters(
        Retention(
            features,
            heads=o["heads"],
            value_size=o["value_dim"] // o["heads"],
            gate=o.get("gate_fn", "swish"),
            norm="rms",
            scale="count" if recurrent else "scores",
            rngs=nnx.Rngs(0),
        ),
        dense(x, QKVO | {"W_g": "g"}),
    )
    ys, h = [], None
    o.ignore("chunk")  # 1 in the other modes
    meta.expect(eps=layer.norm.eps)
    length = o["chunk"] if o["mode"] == "chunk" else x["x"].shape[1]
    for start in range(0, x["x"].shape[1], length):
        y, h = layer(x["x"][:, start : start + length], h, evaluator=evaluator)
        ys.append(y)
    answer = {"y": jnp.concatenate(ys, axis=1)}
    if not recurrent:
        return answer
    (count,) = layer.counts(h.place[:1] - 1)
    kv = jnp.swapaxes(h.S, 2, 3) / jnp.sqrt(count)[None, :, None, None]
    return answer | {"kv": kv, "scale": count}


def xpos_positions(x, meta):
    o = meta["options"]
    length = x["x"].shape[1] + o["offset"]
    turned = jax.vmap(
        lambda z: xpos(
            z[:, None],
            jnp.arange(o["offset"], length),
            keys=o["downscale"],
            centre=-(-length // 2),
            base=o["scale_base"],
        )[:, 0]
    )
    return {"y": turned(x["x"])}


def transnormer_llm(x, meta, evaluator):
    o, features = meta["options"], x["x"].shape[2]
    q, k, v, u = jnp.split(rows(x["qkvu_proj.weight"]), 4, axis=1)
    parameters = {"W_q.kernel": q, "W_k.kernel": k, "W_v.kernel": v, "W_u.kernel": u}
    parameters |= {"W_o.kernel": rows(x["out_proj.weight"]), "slope": x["slope"].reshape(-1)}
    if o["lrpe"]:
        parameters["theta"] = x["lrpe.theta"][:, 0]
    layer = with_parameters(
        GatedNormAttention(features, heads=o["heads"], lrpe=o["lrpe"], rngs=nnx.Rngs(0)), parameters
    )
    y, h = layer(x["x"], evaluator=evaluator)
    return {"y": y, "S": h.S}


def lightning_attention(x, meta, evaluator):
    o, features = meta["options"], x["x"].shape[2]
    depth = o["layer_idx"] / (o["num_layers"] - 1)
    gates = {"W_g1": "output_gate.0", "W_g2": "output_gate.1"}
    parameters = dense(x, QKVO | {"W_o": "o"}) | dense(x, gates, suffix="")
    parameters |= {"norm.weight": x["norm.weight"], "norm.bias": x["norm.bias"]}
    parameters["slope"] = head_slopes("alibi", o["heads"], depth)
    layer = build("lightning_attention", features, parameters, heads=o["heads"], depth=depth)
    return {"y": layer(x["x"], evaluator=evaluator)[0]}


# ---- AFT ----------------------------------------------------------------------------------------


def aft(x, meta):
    o = meta["options"]
    linears = {"W_q": "to_q", "W_k": "to_k", "W_v": "to_v", "W_o": "project"}
    layer = build(
        "aft",
        x["x"].shape[2],
        dense(x, linears, suffix="") | ({"w": x["wbias"]} if "wbias" in x else {}),
        kind=o["kind"],
        hidden=len(x["to_q.bias"]),
        window=o["window"],
        length=o["max_seqlen"],
        rank=None,
        causal=False,
    )
    return {"y": layer(x["x"])[0]}


ADAPTERS = {
    "performer_favor": by_evaluators(performer),
    "random_features_idiap": only(random_features),
    "rfa": by_evaluators(rfa),
    "dpfp": only(dpfp),
    "cosformer": by_evaluators(cosformer),
    "based_attn": by_evaluators(based_attn),
    "rebased_attn": by_evaluators(partial(based_attn, feature_map="square")),
    "based_layer": by_evaluators(based_layer),
    "retnet_msr": by_evaluators(retnet),
    "xpos": only(xpos_positions),
    "transnormerllm_norm_attn": by_evaluators(transnormer_llm),
    "tnl_attention": by_evaluators(lightning_attention),
    "aft": only(aft),
}
