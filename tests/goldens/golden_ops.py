"""Adapters of the goldens that ops answer: they rename and reshape, and never compute.

ADAPTERS[golden][evaluator](inputs, meta) -> outputs under the golden's names
"""

import math
from functools import partial

import jax.numpy as jnp

import seqjax
from seqjax import ops


def by_evaluators(op, adapter):
    """The adapter once for each evaluator of the op that computes it.

    "sequential" is the naive loop in pieces; test_ops compares the two.
    """
    names = [name for name in ops.OPS[op].evaluators if name != "sequential"]
    return {name: partial(adapter, evaluator=name) for name in names}


def key_scale(x, meta):
    return meta.get("scale", x["k" if "k" in x else "q"].shape[-1] ** -0.5)


def linear_attention(x, meta, evaluator, log_a=None):
    o, S = seqjax.linear_attention(
        x["q"], x["k"], x["v"], log_a, x.get("S0"), evaluator=evaluator, scale=key_scale(x, meta)
    )
    return {"o": o, "S": S}


def gated(x, meta, evaluator):
    return linear_attention(x, meta, evaluator, x["g"])


def hgrn2(x, meta, evaluator):
    return linear_attention({**x, "k": -jnp.expm1(x["g"])}, meta, evaluator, x["g"])


def retention(x, meta, evaluator):
    heads = jnp.arange(x["v"].shape[2], dtype=x["v"].dtype)
    return linear_attention(x, meta, evaluator, jnp.log1p(-(2.0 ** (-5 - heads))))


def lightning(x, meta, evaluator):
    heads = jnp.arange(x["v"].shape[2], dtype=x["v"].dtype)
    depth = 1 - meta["layer_idx"] / meta["num_layers"]
    meta.ignore("log_decay_per_head")  # the same, as numbers
    return linear_attention(x, meta, evaluator, -8 / len(heads) * depth * heads)


def normalised(x, meta, evaluator):
    state = None if "S0" not in x else (x["S0"], x["z0"][:, 0])
    o, (S, z) = seqjax.linear_attention(
        x["q"],
        x["k"],
        x["v"],
        None,
        state,
        normalise=True,
        eps=meta["eps"],
        scale=key_scale(x, meta),
        evaluator=evaluator,
    )
    return {"o": o, "S": S, "z": z[:, None]}


def rwkv6(x, meta, evaluator):
    o, S = seqjax.linear_attention(
        x["r"],
        x["k"],
        x["v"],
        x["w"],
        x.get("S0"),
        bonus=x["u"],
        scale=key_scale(x, meta),
        evaluator=evaluator,
    )
    return {"o": o, "S": S}


def delta_rule(x, meta, evaluator):
    o, S = seqjax.delta_rule(
        x["q"],
        x["k"],
        x["v"],
        x["beta"],
        x.get("S0"),
        scale=key_scale(x, meta),
        evaluator=evaluator,
    )
    return {"o": o, "S": S}


def gated_delta_rule(x, meta, evaluator):
    o, S = seqjax.gated_delta_rule(
        x["q"],
        x["k"],
        x["v"],
        x["beta"],
        x["g"],
        x.get("S0"),
        scale=key_scale(x, meta),
        evaluator=evaluator,
    )
    return {"o": o, "S": S}


def gated_delta_product(x, meta, evaluator):
    meta.expect(num_householder=x["k"].shape[1] // x["q"].shape[1])
    meta.ignore("scale")  # as the reference does
    o, S = seqjax.gated_delta_product(
        x["q"], x["k"], x["v"], x["beta"], x.get("g"), x.get("S0"), evaluator=evaluator
    )
    return {"o": o, "S": S}


def dplr(x, meta, evaluator):
    o, S = seqjax.dplr(
        x["q"],
        x["k"],
        x["v"],
        x["alpha"],
        x["beta"],
        x.get("g"),
        x.get("S0"),
        scale=key_scale(x, meta),
        evaluator=evaluator,
    )
    return {"o": o, "S": S}


def rwkv7(x, meta, evaluator):
    o, S = seqjax.dplr(
        x["r"],
        x["k"],
        x["v"],
        x["a"],
        x["b"],
        x["w"],
        x.get("S0"),
        scale=meta["scale"],
        evaluator=evaluator,
    )
    return {"o": o, "S": S}


def mlstm(x, meta, evaluator, initial_m):
    state = None if "C0" not in x else (x["C0"], x["n0"], x["m0"][..., 0])
    h, (C, n, m) = seqjax.stabilised_attention(
        x["q"],
        x["k"],
        x["v"],
        x["i"],
        -jnp.logaddexp(0.0, -x["f"]),
        state,
        initial_m=initial_m,
        scale=x["q"].shape[-1] ** -0.5,
        eps=meta["eps"],
        evaluator=evaluator,
    )
    return {"h": h} if initial_m else {"h": h, "C": C, "n": n, "m": m[..., None]}


def selective_scan(x, meta, evaluator):
    forms = {2: "const", 3: "var", 4: "group"}
    meta.expect(B_kind=forms[x["B"].ndim])
    if "C_kind" in meta:
        meta.expect(C_kind=forms[x["C"].ndim])
    o, state = seqjax.selective_scan(
        x["u"],
        x["delta"],
        x["A"],
        x["B"],
        x["C"],
        x.get("D"),
        x.get("z"),
        x.get("delta_bias"),
        x.get("state0"),
        delta_softplus=meta["delta_softplus"],
        evaluator=evaluator,
    )
    return {"o": o, "state": state}


def ssd(x, meta, evaluator):
    meta.ignore("chunk_size")  # of the reference's own chunks
    y, _ = seqjax.ssd(
        x["x"],
        x["dt"],
        x["A"],
        x["B"],
        x["C"],
        x.get("D"),
        x.get("z"),
        x.get("dt_bias"),
        dt_softplus=meta["dt_softplus"],
        dt_limit=meta.get("dt_limit"),
        evaluator=evaluator,
    )
    return {"y": y}


def ssd_minimal(x, meta, evaluator):
    state = None if "S0" not in x else jnp.swapaxes(x["S0"], -1, -2)
    y, S = seqjax.linear_attention(x["C"], x["B"], x["X"], x["A"], state, evaluator=evaluator)
    return {"y": y, "S": jnp.swapaxes(S, -1, -2)}


def hgrn(x, meta, evaluator):
    o, h = seqjax.linear_scan(jnp.exp(x["g"]), x["x"], x.get("h0"), evaluator=evaluator)
    return {"o": o, "h": h}


ADAPTERS = {
    "linear_attn": by_evaluators("linear_attention", linear_attention),
    "linear_attn_normalized": by_evaluators("linear_attention", normalised),
    "simple_gla": by_evaluators("linear_attention", gated),
    "retention": by_evaluators("linear_attention", retention),
    "gla": by_evaluators("linear_attention", gated),
    "hgrn2": by_evaluators("linear_attention", hgrn2),
    "lightning_attn": by_evaluators("linear_attention", lightning),
    "rwkv6": by_evaluators("linear_attention", rwkv6),
    "delta_rule": by_evaluators("gated_delta_rule", delta_rule),
    "gated_delta_rule": by_evaluators("gated_delta_rule", gated_delta_rule),
    "gated_delta_product": by_evaluators("gated_delta_rule", gated_delta_product),
    "kda": by_evaluators("gated_delta_rule", gated_delta_rule),
    "iplr": by_evaluators("dplr", dplr),
    "dplr": by_evaluators("dplr", dplr),
    "rwkv7": by_evaluators("dplr", rwkv7),
    "mlstm_recurrent": by_evaluators("stabilised_attention", partial(mlstm, initial_m=0.0)),
    "mlstm_parallel": by_evaluators("stabilised_attention", partial(mlstm, initial_m=-math.inf)),
    "mamba1_selective_scan": by_evaluators("selective_scan", selective_scan),
    "mamba2_ssd": by_evaluators("linear_attention", ssd),
    "mamba2_ssd_minimal": by_evaluators("linear_attention", ssd_minimal),
    "hgrn": by_evaluators("linear_scan", hgrn),
}
