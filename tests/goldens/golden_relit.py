"""Goldens of ReLiT's memory in all its update rules, and of AReLiT."""

import jax
import jax.numpy as jnp
from golden_features import by_evaluators
from golden_layers import build

from seqjax import ops
from seqjax.core.flow import Carry, Flow
from seqjax.layers.linear_attention.relit import Oscillators

GATES = {
    "gated_peng": "scalar",
    "keyvalue_gated": "joint",
    "projected_sigmoid": "joint",
    "delta": "delta",
    "mega": "damped",
}


def relit_memory(x, meta, evaluator):
    o, (_, V, K), features = meta["options"], x["c0"].shape, x["x"].shape[2]
    gate, rule = GATES[o["update_rule"]], o["update_rule"]
    kernel, nu = o["kernel"]["name"], o["kernel"]["nu"]
    pairs, projected = kernel.startswith("pp_"), rule == "projected_sigmoid"
    linear = iter([f"Dense_{n}" for n in range(4)])
    products = iter([f"ParameteredProjection_{n}.Dense_" for n in range(2)])
    names, unasked = {}, {"W_q": (features, V), "W_o": (V, features)}  # queries are given
    if pairs:
        prefix = next(products)
        names |= {"W_k": f"{prefix}0", "P_1": f"{prefix}1"}
        unasked["P_2"] = features, nu
    else:
        names["W_k"] = next(linear)
        unasked["W_q"] = features, x[f"{names['W_k']}.bias"].size
    names["W_v"] = next(linear)
    if gate in ("scalar", "joint", "delta"):
        names["W_beta"] = next(linear)
    if projected:
        prefix = next(products)
        names |= {"W_gamma": f"{prefix}0", "P_3": f"{prefix}1"}
    elif gate in ("joint", "delta"):
        names["W_gamma"] = next(linear)

    def order(z, back=False):  # its projected features run over eta fastest, ours over the size
        if not projected:
            return z
        shape = (K // V, V) if back else (V, K // V)
        return jnp.swapaxes(z.reshape(*z.shape[:-1], *shape), -1, -2).reshape(z.shape)

    parameters = {f"{n}.{w}": x[f"{m}.{w}"] for n, m in names.items() for w in ("kernel", "bias")}
    if projected and not pairs:  # to meet the gate, keys are in its order
        parameters |= {n: order(parameters[n]) for n in ("W_k.kernel", "W_k.bias")}
    parameters |= {f"{n}.kernel": jnp.zeros(shape) for n, shape in unasked.items()}
    parameters |= {f"{n}.bias": jnp.zeros(shape[1]) for n, shape in unasked.items()}
    if gate == "damped":
        damped = {"beta": "beta", "beta_d": "beta_damp", "gamma": "gamma", "gamma_d": "gamma_damp"}
        parameters |= {f"damped.{ours}": x[theirs][None] for ours, theirs in damped.items()}
    maps_of = {"eluplus1": "elu+1", "relu": "relu", "dpfp": ("dpfp", {"nu": nu})}
    options = dict(eta=nu, f=maps_of[kernel[3:]]) if pairs else {}
    if not pairs:
        widening = 1 if kernel == "dpfp" else nu
        options = dict(feature_map=maps_of[kernel], widening=widening)
    layer = build(
        "relit",
        features,
        parameters,
        heads=1,
        size=V,
        gate=gate,
        gate_map="projected" if projected else "linear",
        **options,
    )
    C = jnp.concatenate([jnp.swapaxes(order(x["c0"]), 1, 2), order(x["s0"])[..., None]], axis=-1)
    # its delta rule looks at no terminations
    resets = x["terminations"] & (gate != "delta")
    name = evaluator if evaluator in layer.evaluators else "chunked"

    def recall(q, z, h, resets):
        return layer.recall(q, z, Carry(h, jnp.zeros_like(h)), Flow(resets, evaluator=name))

    y, h = jax.vmap(recall)(order(x["q"])[:, :, None], x["x"], C[:, None], resets)
    c = order(jnp.swapaxes(h[:, 0, :, :-1], 1, 2), back=True)
    return {"o": y[:, :, 0], "c": c, "s": order(h[:, 0, :, -1], back=True)}


AGATES = {
    "linear_kqvbetagammas": ("W_k", "W_q", "W_v", "W_beta", "W_gamma"),
    "linear_p1p2p3": ("P_1", "P_2", "P_3"),
}


def arelit(x, meta, evaluator):
    o, features = meta["options"], x["x"].shape[2]
    V = len(x["project.kernel"]) // o["heads"]
    parameters = {f"W_o.{w}": x[f"project.{w}"] for w in ("kernel", "bias")}
    for w in ("kernel", "bias"):
        for theirs, ours in AGATES.items():
            whole = x[f"{theirs}.{w}"]  # all parts of a head, then the next head
            parts = whole.reshape(*whole.shape[:-1], o["heads"], len(ours), -1)
            for i, name in enumerate(ours):
                parameters[f"{name}.{w}"] = parts[..., i, :].reshape(*whole.shape[:-1], -1)
    layer = build(
        "relit",
        features,
        parameters,
        heads=o["heads"],
        size=V,
        eta=o["eta"],
        r=o["r"],
        restart=False,
    )
    h = None
    if "k0" in x:
        place = x["tick0"].astype(jnp.int32)[:, 0] - 1
        h = Oscillators(x["k0"], x["v0"], x["s0"], place)
    y, h = layer(x["x"], h, x["terminations"] > 0, evaluator=evaluator)
    tick = (h.place + 1)[:, None].astype(jnp.float64)
    return {"y": y, "k_last": h.K, "v_last": h.V, "s_last": h.s, "tick": tick}


SCAN = tuple(name for name in ops.OPS["linear_scan"].evaluators if name != "naive")

ADAPTERS = {
    "relit_memory": by_evaluators(relit_memory, SCAN),
    "arelit_attention": by_evaluators(arelit, SCAN),
}
