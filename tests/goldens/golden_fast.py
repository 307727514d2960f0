"""Goldens of the fast-weight family: delta rules, learners inside the layer.

An adapter puts the reference's weights and inputs under our names; the numbers come from the layer,
or from the function that the layer calls.
"""

from functools import partial

import jax
import jax.numpy as jnp
from golden_layers import build
from golden_tools import without_resets
from oracle_tools import learn

from seqjax.core.flow import Carry, Flow
from seqjax.layers.fast_weights.comba import closed_loop_delta_rule
from seqjax.layers.fast_weights.fwp import sum_normalised
from seqjax.layers.fast_weights.gdn2 import decoupled_delta_rule
from seqjax.layers.fast_weights.longhorn import longhorn_scan
from seqjax.layers.fast_weights.mesa_net import MesaNet
from seqjax.layers.fast_weights.recurrent_deltanet import RDNState, RecurrentDeltaNet
from seqjax.nn.gates import log_decay
from seqjax.ops import OPS
from seqjax.ops.bounded_delta_rule import bounded_delta_rule
from seqjax.ops.delta_rule import delta_rule
from seqjax.ops.inner_model import Inner, Steps, start_of
from seqjax.ops.mesa import mesa


def by_evaluator(adapter, *evaluators):
    return {name: partial(adapter, evaluator=name) for name in evaluators}


def op_scale(x, meta):
    return meta.get("scale", x["k"].shape[-1] ** -0.5)


def comba(x, meta, *, evaluator):
    o, S = closed_loop_delta_rule(
        *(x[name] for name in ("q", "k", "v", "p", "beta", "g")),
        x.get("S0"),
        scale=op_scale(x, meta),
        evaluator=evaluator,
    )
    return {"o": o, "S": S}


def gdn2(x, meta, *, evaluator):
    o, S = decoupled_delta_rule(
        *(x[name] for name in ("q", "k", "v", "b", "w", "g")),
        x.get("S0"),
        scale=op_scale(x, meta),
        evaluator=evaluator,
    )
    return {"o": o, "S": S}


def kda_gate(x, meta):
    bias = x["dt_bias"].reshape(x["x"].shape[2:]) if "dt_bias" in x else None
    bound = meta["options"]["lower_bound"]
    return {"g": jax.vmap(lambda z: log_decay(z, x.get("A_log"), bias, lower_bound=bound))(x["x"])}


def mesa_net(x, meta, *, evaluator):
    k, v = x["k"], x["v"]
    B, (H, K), V = len(k), x["lamb"].shape, v.shape[3]
    zeros = lambda n: jnp.zeros((B, H, K, n))  # noqa: E731
    S = jnp.concatenate([x.get("Hkk0", zeros(K)), x.get("Hkv0", zeros(V))], axis=-1)
    Lambda = jnp.broadcast_to(x["lamb"], (B, H, K))[0]
    o, S = mesa(x["q"], k, v, x["g"], x["beta"], Lambda, S, iterations=K, evaluator=evaluator)
    return {"o": o, "Hkk": S[..., :K], "Hkv": S[..., K:]}


# ---- learning inside the layer ------------------------------------------------------------------


def with_bias(W, b):
    """[.., in, out] and [.., 1, out] as the one matrix of a layer."""
    return jnp.concatenate([W, b], axis=-2)


def over_batch(inner, xs, W, norm, evaluator, **parts):
    """Outputs and the last weights; W [B, heads, in, out] per layer."""

    def one(xs, W):
        start = start_of(W, **parts)
        y, h = learn(inner, xs, norm, Carry(start, start), Flow(evaluator=evaluator))
        return y, h.W

    return jax.vmap(one)(xs, W)


def ttt_fla(x, meta, *, evaluator):
    B, _, H, D = x["q"].shape
    W = x.get("W0", jnp.zeros((B, H, D, D))), x.get("b0", jnp.zeros((B, H, 1, D)))
    tau = x["eta"][..., 0]
    xs = Steps(meta["scale"] * x["q"], x["k"], x["v"], jnp.ones_like(tau), tau)
    inner = Inner(meta["mini_batch_size"], output="inner", eps=meta["eps"])
    o, (W,) = over_batch(
        inner, xs, (with_bias(*W),), (x["w"], x["b"]), evaluator, momentum=False, decay=False
    )
    return {"o": o, "W": W[..., :-1, :], "b": W[..., -1:, :]}


def ttt_official(x, meta, *, evaluator):
    B, T, H, D = x["q"].shape
    layers = [n for n in ("1", "2") if f"W{n}" in x]
    W = [with_bias(x[f"W{n}"], x[f"b{n}"]) for n in layers]
    W = tuple(jnp.broadcast_to(w[None], (B, *w.shape)) for w in W)
    theta = meta["base_lr"] / D * x["lr"]
    size = meta["mini_batch_size"]
    tau = jnp.broadcast_to(jnp.tile(x["token_idx"], T // size)[None, :, None], theta.shape)
    xs = Steps(x["q"], x["k"], x["v"], theta, tau)
    norm = x["ln_w"], x["ln_b"]
    o, W = over_batch(Inner(size), xs, W, norm, evaluator, momentum=False, decay=False)
    last = {f"W{n}_final": w[..., :-1, :] for n, w in zip(layers, W)}
    return {"o": o, **last, **{f"b{n}_final": w[..., -1:, :] for n, w in zip(layers, W)}}


def titans_fla(x, meta, *, evaluator):
    B, _, H, D = x["q"].shape
    theta, alpha, eta = (x[name][..., 0] for name in ("theta", "alpha", "eta"))
    xs = Steps(x["q"], x["k"], x["v"], 2 * theta, None, jnp.log(eta), jnp.log1p(-alpha))
    inner = Inner(
        meta["chunk_size"], loss="residual_fla", output="inner", bias=False, eps=meta["eps"]
    )
    W = (x.get("M0", jnp.zeros((B, H, D, D))),)
    norm = x["w"], x["b"]
    o, (W,) = over_batch(inner, xs, W, norm, evaluator, momentum=True, decay=True)
    return {"o": o, "M": W}


# ---- fast weight programmers --------------------------------------------------------------------


def fwp_update(x, meta, *, evaluator):
    beta = jax.nn.sigmoid(x["beta_logit"])
    k, v = x["k"][:, :, None], x["v"][:, :, None]  # one head
    if meta["options"]["rule"] == "ours":
        k = sum_normalised(k)
        S = delta_rule(k, k, v, beta, evaluator=evaluator)[1]
    else:
        S = bounded_delta_rule(k, k, v, beta)[1]
    return {"W": jnp.swapaxes(S[:, 0], 1, 2)}


def fwp_layer(x, meta, *, evaluator):
    options = meta["options"]
    heads, size, features = options["heads"], options["d_head"], x["x"].shape[2]
    slow = x["qkvb_net.weight"].reshape(heads, 3 * size + 1, features)
    parts = jnp.split(slow, (size, 2 * size, 3 * size), axis=1)
    names = ("W_q", "W_k", "W_v", "W_beta")
    parameters = {f"{n}.kernel": p.reshape(-1, features).T for n, p in zip(names, parts)}
    parameters |= {
        "W_o.kernel": x["o_net.weight"].T,
        "norm.weight": x["layer_norm.weight"],
        "norm.bias": x["layer_norm.bias"],
    }
    divided = "update" if "Norm" in options["cls"] else "output"
    layer = build(
        "fwp",
        features,
        parameters,
        heads=heads,
        head_size=size,
        feature_map=("dpfp", {"nu": options["n_roll"]}),
        update="delta",
        normalise=divided if options["attn_norm"] else "none",
        order="pre_released" if options["pre_lnorm"] else "post",
    )
    return {"y": layer(x["x"], evaluator=evaluator)[0]}


# ---- regression inside the layer ----------------------------------------------------------------


def longhorn_op(x, meta, *, evaluator):
    names = ("u", "q", "k", "dt", "D", "z", "t_bias")
    axes = tuple(0 if x.get(name, jnp.zeros(1)).ndim == 3 else None for name in names)
    run = jax.vmap(partial(longhorn_scan, evaluator=evaluator), in_axes=axes)
    return {"y": run(*(x.get(name) for name in names))[0]}


def longhorn_layer(x, meta, *, evaluator):
    names = dict(W_in="in_proj", W_x="x_proj", W_dt="dt_head_w", W_out="out_proj")
    parameters = {f"{ours}.kernel": x[theirs].T for ours, theirs in names.items()}
    parameters |= {
        "conv.weight": x["conv_w"].T,
        "conv.bias": x["conv_b"],
        "dt_bias": x["dt_head_b"],
        "D": x["D"],
    }
    rank = x["dt_head_w"].shape[1]
    layer = build(
        "longhorn",
        x["x"].shape[2],
        parameters,
        state=(len(x["x_proj"]) - rank) // 2,
        expand=1,
        dt_rank=rank,
    )
    return {"y": layer(x["x"], evaluator=evaluator)[0]}


def recurrent_delta_net(x, meta, *, evaluator):
    """The reference starts at the pre-activations: the projections are identities here."""
    B, T, H, D = x["q"].shape
    given = jnp.concatenate(
        [x[name].reshape(B, T, -1) for name in ("q", "k", "v", "beta_logit")], 2
    )
    features = given.shape[2]
    R = [x["R_q"], x["R_k"], x["R_v"], x["r_b"][..., None]]
    parameters = {
        "W.kernel": jnp.eye(features),
        "R": jnp.concatenate(R, axis=2),
        "W_o.kernel": jnp.zeros((H * D, features)),
        "norm.weight": jnp.ones(features),
        "norm.bias": jnp.zeros(features),
    }
    layer = build("recurrent_deltanet", features, parameters, heads=H, head_size=D)
    S = jnp.swapaxes(x.get("W0", jnp.zeros((B, H, D, D))), 2, 3)
    h = RDNState(S, x.get("o0", jnp.zeros((B, H, D))))
    states, last = without_resets(layer.states, evaluator)(given, h)
    return {"o": states.o, "W": jnp.swapaxes(last.S, 2, 3)}


def srwm(x, meta, *, evaluator):
    names = ("W_y", "W_q", "W_k", "w_b")
    W = jnp.concatenate([x[name] for name in names], axis=3)
    B, T, H, D = x["x"].shape
    parameters = {
        "W": jnp.zeros(W.shape[1:]),
        "W_o.kernel": jnp.zeros((H * D, H * D)),
        "norm.weight": jnp.ones(H * D),
        "norm.bias": jnp.zeros(H * D),
    }
    layer = build("srwm", H * D, parameters, heads=H)
    refer = without_resets(layer.refer, evaluator)
    y, before = refer(x["x"][:, : T - 1], W)  # the reference does not update at the last step
    last = jnp.split(before, (D, 2 * D, 3 * D), axis=3)
    y = jnp.concatenate([y, refer(x["x"][:, T - 1 :], before)[0]], axis=1)
    return {"y": y} | ({f"{n}_last": w for n, w in zip(names, last)} if T > 1 else {})


ADAPTERS = {
    "recurrent_delta_net": by_evaluator(recurrent_delta_net, *RecurrentDeltaNet.evaluators),
    "srwm": by_evaluator(srwm, "sequential"),
    "fwp_update": by_evaluator(fwp_update, *OPS["gated_delta_rule"].evaluators),
    "fwp_dpfp_delta_layer": by_evaluator(fwp_layer, *OPS["gated_delta_rule"].evaluators),
    "longhorn_scan": by_evaluator(longhorn_op, *OPS["linear_scan"].evaluators),
    "longhorn_layer": by_evaluator(longhorn_layer, *OPS["linear_scan"].evaluators),
    "mesa_net": by_evaluator(mesa_net, *MesaNet.evaluators),
    "ttt_linear_fla": by_evaluator(ttt_fla, "sequential", "chunked"),
    "ttt_linear_official": by_evaluator(ttt_official, "sequential", "chunked"),
    "ttt_mlp_official": by_evaluator(ttt_official, "sequential", "chunked"),
    "titans_linear_fla": by_evaluator(titans_fla, "sequential", "chunked"),
    "comba": by_evaluator(comba, *OPS["dplr"].evaluators),
    "kda_gate": {"function": kda_gate},
    "gdn2": by_evaluator(gdn2, *OPS["dplr"].evaluators),
}
