"""Goldens answered by the gated element-wise layers: SRU, UR-LSTM and its gates, HGRU."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from golden_layers import build, by_evaluator, under
from golden_tools import with_parameters, without_resets

from seqjax.layers.classic.bidirectional import BiState
from seqjax.layers.classic.lstm import LSTMState
from seqjax.layers.elementwise.hgru import HGRU
from seqjax.layers.elementwise.ur_lstm import MECHANISMS, URCell

CELL = ("sequential", "newton", "parallel_backward")


def sru(inputs, meta, *, evaluator):
    x, options = inputs["x"], meta["options"]
    dirs = 2 if options.get("bidirectional") else 1
    H, highway = len(inputs["bias"]) // 2 // dirs, options.get("has_skip_term", True)
    W = inputs["weight"]
    W = jnp.swapaxes(W.reshape(len(W), dirs, H, -1), 2, 3).reshape(W.shape)  # blocks of [hidden]
    v, b = (jnp.swapaxes(inputs[name].reshape(2, dirs, H), 0, 1) for name in ("weight_c", "bias"))
    values = {"W": W}
    for d, cells in enumerate(("cells", "back")[:dirs]):
        values |= {f"{cells}.v": v[d], f"{cells}.b": b[d]}
    rescale = options.get("rescale", True)
    if highway and rescale and x.shape[2] == dirs * H:
        values["alpha"] = inputs["scale_x"]
    else:  # it may be there, unused
        inputs.ignore("scale_x")
    if options.get("layer_norm"):
        values |= {f"norm.{n}": inputs[f"layer_norm.{n}"] for n in ("weight", "bias")}
    if options.get("n_proj"):
        values["W_in.kernel"] = inputs["weight_proj"]
    layer = build(
        "sru",
        x.shape[2],
        values,
        hidden=H,
        activation="tanh" if options.get("use_tanh") else "linear",
        highway=highway,
        highway_bias=options.get("highway_bias", 0.0),
        rescale=rescale,
        norm=options.get("layer_norm", False),
        normalize_after=options.get("normalize_after", False),
        bidirectional=dirs == 2,
        rank=options.get("n_proj"),
    )
    h = inputs.get("c0")
    if h is not None and dirs == 2:
        h = BiState(*jnp.split(h, 2, axis=1))
    mask = ~inputs["mask_pad"] if "mask_pad" in inputs else None
    y, h = layer(x, h, mask=mask, evaluator=evaluator)
    return {"y": y, "c": jnp.concatenate(jax.tree.leaves(h), axis=1)}


def ur_lstm(inputs, meta, *, names, evaluator):
    x, hidden, parameters, states = inputs["x"], inputs["h0"].shape[2], {}, []
    for level in range(meta["num_layers"]):
        taken = {
            n: inputs[f"layers.{level}.{n}"]
            for n in ("igates.weight", "igates.bias", "hgates.weight", "hgates.bias", "forget_bias")
        }
        values = {
            "W.kernel": taken["igates.weight"].T,
            "W.bias": taken["igates.bias"] + taken["hgates.bias"],
            "U": taken["hgates.weight"],
            "b_f": taken["forget_bias"],
        }
        parameters |= under(f"layers.{level}", values)
        states.append(LSTMState(inputs["h0"][level], inputs["c0"][level]))
    layers = [("ur_lstm", dict(hidden=hidden))] * meta["num_layers"]
    stack = build("stacked", x.shape[2], parameters, layers=layers)
    y, last = stack(x, tuple(states), evaluator=evaluator)
    h, c = (jnp.stack(z) for z in zip(*last))
    return {"y": y, names[0]: h, names[1]: c}


def gate_ur_rnn(inputs, meta, *, evaluator):
    x, h = inputs["x"], inputs["h0"]
    width, mechanism = x.shape[2], meta["options"]["mechanism"]
    gates = [f"W_g.W_{j}" for j in ("g", "r") if f"W_g.W_{j}.weight" in inputs]
    rows = [inputs[f"{gate}.weight"] for gate in gates]
    biases = [inputs["W_hx.bias"] + inputs["W_hh.bias"], *(inputs[f"{g}.bias"] for g in gates)]
    values = {
        "W.kernel": jnp.concatenate([inputs["W_hx.weight"], *(W[:, :width] for W in rows)]).T,
        "W.bias": jnp.concatenate(biases),
        "U": jnp.concatenate([inputs["W_hh.weight"], *(W[:, width:] for W in rows)]),
    }
    if MECHANISMS[mechanism].uniform:
        values["b_g"] = inputs["W_g.b_g"]
    cell = URCell(width, hidden=h.shape[1], mechanism=mechanism, rngs=nnx.Rngs(0))
    cell = with_parameters(cell, values)
    y, last = cell(x, h, evaluator=evaluator)
    before = jnp.concatenate([h[:, None], y], axis=1)[:, :-1]
    g = jax.vmap(jax.vmap(cell.gates))(before, cell.drive(x))[1]
    return {"y": y, "g": g, "h": last}


def hgru(inputs, meta, *, evaluator):
    x, turned = inputs["x"], "theta" in inputs
    values = {}
    for ours, theirs in (
        ("c", "input_proj"),
        ("mu", "lambda_proj"),
        ("g", "gate"),
        ("o", "out_proj"),
    ):
        values[f"W_{ours}.kernel"] = inputs[f"{theirs}.weight"].T
        values[f"W_{ours}.bias"] = inputs[f"{theirs}.bias"]
    values |= {f"norm.{n}": inputs[f"norm.{n}"] for n in ("weight", "bias")}
    if turned:
        values["theta"] = inputs["theta"].reshape(-1)
    layer = HGRU(x.shape[2], complex_gate=turned, rngs=nnx.Rngs(0))
    layer = with_parameters(layer, values)
    gamma, h = inputs["lower_bound"], jnp.zeros(x.shape[2], complex if turned else float)
    run = without_resets(lambda x, h, flow: layer.bounded(x, h, flow, gamma), evaluator)
    return {"y": run(x, jnp.broadcast_to(h, (len(x), *h.shape)))[0]}


ADAPTERS = {
    "sru": by_evaluator(sru, *CELL),
    "ur_lstm": by_evaluator(partial(ur_lstm, names=("h_n", "c_n")), "sequential"),
    "ur_lstm_btz": by_evaluator(partial(ur_lstm, names=("h", "c")), "sequential"),
    "gate_ur_rnn": by_evaluator(gate_ur_rnn, *CELL),
    "hgrn_real_layer": by_evaluator(hgru, "sequential", "associative", "primitive"),
    "hgru_complex_layer": by_evaluator(hgru, "sequential", "associative", "primitive"),
}
