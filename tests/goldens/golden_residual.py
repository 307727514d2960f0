"""Adapters of residual and highway recurrences: the elman project's, highway networks."""

from functools import partial

import jax
import jax.numpy as jnp
from golden_layers import CELL, all_states, build, by_evaluator, stack_gates, under

from seqjax.layers.classic.lstm import LSTMState
from seqjax.layers.residual.highway_rnn import NoisyState
from seqjax.nn.convolution import Convolved


def gated_elman(inputs, meta, *, name, evaluator):
    x, P = inputs["x"], inputs["in_proj.weight"]
    H = inputs["out_proj.weight"].shape[1]
    values = {"P.kernel": P[:H].T, "Q.kernel": inputs["out_proj.weight"].T}
    if name == "e1":
        values["Z.kernel"] = P[H:].T
    if name == "e42":
        values |= under("cell", {"W": inputs["cell.W"], "b": inputs["cell.b"]})
    else:
        W, U, b = (inputs[f"cell.{name}"] for name in ("W_x", "W_h", "b"))
        values |= under("cell", {"W.kernel": W.T, "W.bias": b, "U": U})
    conv = 0
    if "conv1d.weight" in inputs:
        taps = inputs["conv1d.weight"][:, 0].T
        conv, values = len(taps), values | {"conv.weight": taps, "conv.bias": inputs["conv1d.bias"]}
    layer = build(name, x.shape[2], values, expansion=H / x.shape[2], conv=conv)
    h = layer.batch_state(len(x), x.dtype)
    if "h0" in inputs:
        h = h._replace(S=inputs["h0"]) if conv else inputs["h0"]
    y, h = layer(x, h, evaluator=evaluator)
    return {"y": y, "h": h.S if isinstance(h, Convolved) else h}


def e88(inputs, meta, *, evaluator):
    x, options = inputs["x"], meta["options"]
    heads, K = meta["n_heads"], meta["n_state"]
    values = inputs["o_proj.weight"].shape[1]
    named = {"W_qkv": "qkv_proj", "Q": "o_proj", "W_a": "a_proj"}
    gate = options.get("gate_activation", "silu") if options.get("use_gate") else "none"
    if gate != "none":
        named["Z"] = "g_proj"
    weights = {f"{own}.kernel": inputs[f"{name}.weight"].T for own, name in named.items()}
    weights |= {name: inputs[name] for name in ("A_log", "dt_bias")}
    layer = build(
        "e88",
        x.shape[2],
        weights,
        heads=heads,
        key_size=K,
        value_size=values // heads,
        gate=gate,
        linear_state=options.get("linear_state", False),
    )
    y, S = layer(x, inputs.get("S0"), evaluator=evaluator)
    return {"y": y, "S": S}


def rhn(inputs, meta, *, evaluator):
    """Given masks are those of a piece that has begun; a key is what trains."""
    x, s, depth = inputs["x"], inputs["h0"], meta["depth"]
    features, H = x.shape[2], s.shape[1]
    first = [inputs[f"{gate}_0.W"] for gate in "ht"]
    R = [[w[features:] for w in first]]
    R += [[inputs[f"{gate}_{level}.W"] for gate in "ht"] for level in range(1, depth)]
    b = [[inputs[f"{gate}_{level}.b"] for gate in "ht"] for level in range(depth)]
    values = {
        "W.kernel": jnp.concatenate([w[:features] for w in first], axis=1),
        "R": jnp.stack([jnp.concatenate(blocks, axis=1).T for blocks in R]),
        "b": jnp.stack([jnp.concatenate(blocks) for blocks in b]),
    }
    noisy, key = "noise_i" in inputs or "noise_h" in inputs, None
    layer = build("highway_rnn", features, values, hidden=H, depth=depth, dropout=0.5 * noisy)
    if noisy:
        ones = jnp.ones((len(x), features)), jnp.ones((len(x), H))
        masks = inputs.get("noise_i", ones[0]), inputs.get("noise_h", ones[1])
        masks = jnp.concatenate(masks, axis=1)
        s, key = NoisyState(s, masks), jax.random.key(0)
    return {"y": layer(x, s, key=key, evaluator=evaluator)[0]}


def heterogeneous(inputs, meta, *, evaluator):
    x, names = inputs["x"], ("W", "U", "b", "alpha", "beta")
    values = {name: inputs[name] for name in names}
    layer = build("heterogeneous_residual", x.shape[2], values, hidden=len(inputs["b"]))
    return {"h": layer(x, inputs["h0"], evaluator=evaluator)[0]}


def residual_lstm(inputs, meta, *, evaluator):
    x, h = inputs["x"], LSTMState(inputs["h0"], inputs["c0"])
    values = {
        "W.kernel": stack_gates(inputs, "W", "ifgo").T,
        "W.bias": stack_gates(inputs, "b", "ifgo"),
        "U": stack_gates(inputs, "U", "ifgo"),
        "W_p.kernel": inputs["W_p"].T,
    }
    if meta["projected_shortcut"]:
        values["W_h.kernel"] = inputs["W_h"].T
    if meta["peepholes"]:
        values |= {"p": jnp.stack([inputs["p_i"], inputs["p_f"]]), "V_o": inputs["p_o"]}
    options = dict(hidden=h.c.shape[1], projection=h.h.shape[1], peepholes=meta["peepholes"])
    layer = build("residual_lstm", x.shape[2], values, **options)
    y, last = layer(x, h, evaluator=evaluator)
    return {"y": y, "c_last": last.c}


def highway_lstm(inputs, meta, *, evaluator):
    x, depth, values = inputs["x"], meta["num_layers"], {}
    for level in range(depth):
        gates = [f"{gate}{level}" for gate in "ifgo"]
        values |= under(
            f"layers.{level}",
            {
                "W.kernel": stack_gates(inputs, "W", gates).T,
                "W.bias": stack_gates(inputs, "b", gates),
                "U": stack_gates(inputs, "U", gates),
            },
        )
        if level:
            gate = {
                "W.kernel": inputs[f"W_d{level}"].T,
                "W.bias": inputs[f"b_d{level}"],
                "w": jnp.stack([inputs[f"w_dc{level}"], inputs[f"w_dl{level}"]]),
            }
            values |= under(f"gates.{level - 1}", gate)
    H = len(inputs["b_i0"])
    layer = build("highway_lstm", x.shape[2], values, hidden=H, depth=depth)
    states, y = all_states(layer, x, layer.batch_state(len(x), x.dtype), evaluator)
    return {"y": y, "c": states[-1].c[:, -1]}


ADAPTERS = {
    "elman_e1": by_evaluator(partial(gated_elman, name="e1"), *CELL),
    "elman_e33": by_evaluator(partial(gated_elman, name="e33"), *CELL),
    "elman_e88": by_evaluator(e88, *CELL),
    "elman_e42": by_evaluator(partial(gated_elman, name="e42"), *CELL),
    "rhn": by_evaluator(rhn, *CELL),
    "heterogeneous_residual": by_evaluator(heterogeneous, *CELL),
    "residual_lstm": by_evaluator(residual_lstm, *CELL),
    "highway_lstm": by_evaluator(highway_lstm, "sequential", "newton"),
}
