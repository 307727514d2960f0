"""Adapters of the goldens of linear attention with feature maps, decays and gates.

They rename weights and reshape; a reference that looks at the whole sequence is answered by an op
run to the end and read by every query.
"""

from functools import partial

import jax
import jax.numpy as jnp
from golden_layers import build

from seqjax import ops
from seqjax.layers import feature_maps as maps

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
    run = partial(ops.linear_attention, normalise=True, eps=eps, **options)
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
    kind, K = o["kind"], x["x"].shape[-1]
    if kind == "GeneralizedRandomFeatures":
        return {"phi": maps.random_relu(x["x"], W, eps=0.0)}
    z = x["x"] * K**-0.25
    if kind == "Favor":
        stabilise = "norm" if o.get("stabilize") else "none"
        return {"phi": maps.favor(z, W, hyperbolic=True, stabilise=stabilise)}
    phi = maps.fourier(z, W, smoothing=o.get("smoothing", 0.0))
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
    y, h = jax.vmap(partial(layer.attend, evaluator=evaluator))(phi_q, phi_k, x["v"], state)
    found = {"phi_q": phi_q * ratio, "phi_k": phi_k * ratio, "o": y}
    return found if parallel else found | {"S": h[..., :-1] * ratio, "z": h[..., -1] * ratio}


def dpfp(x, meta):
    return {"phi": maps.dpfp(x["x"], meta["options"]["nu"])}


# ---- cosFormer, Based, ReBased ------------------------------------------------------------------


def cosformer(x, meta, evaluator):
    o, (_, length, features) = meta["options"], x["x"].shape
    layer = build("cosformer", features, dense(x, QKVO), heads=o["heads"], length=length, eps=1e-6)
    if o["causal"]:
        return {"y": layer(x["x"], evaluator=evaluator)[0]}

    def read_at_the_end(z):
        q, k, v = layer.weighted(z, jnp.arange(length))
        end = layer.attend(q, k, v, layer.initial().S, evaluator=evaluator)[1]
        y = layer.attend(q, jnp.zeros_like(k), jnp.zeros_like(v), end, evaluator=evaluator)[0]
        return layer.W_o(y.reshape(length, features))

    return {"y": jax.vmap(read_at_the_end)(x["x"])}


def based_attn(x, meta, evaluator, feature_map="taylor"):
    q, k = (
        jax.vmap(maps.make_map(feature_map, 1, x["q"].shape[-1], rngs=None))(x[n]) for n in "qk"
    )
    if meta["normalize"]:
        return {"o": attend(q, k, x["v"], eps=1e-6, evaluator=evaluator)}
    return {"o": ops.linear_attention(q, k, x["v"], evaluator=evaluator)[0]}


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

ADAPTERS = {
    "performer_favor": by_evaluators(performer),
    "random_features_idiap": only(random_features),
    "rfa": by_evaluators(rfa),
    "dpfp": only(dpfp),
    "cosformer": by_evaluators(cosformer),
    "based_attn": by_evaluators(based_attn),
    "rebased_attn": by_evaluators(partial(based_attn, feature_map="square")),
    "based_layer": by_evaluators(based_layer),
}
