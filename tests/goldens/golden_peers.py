"""Goldens of oscillators, memories inside RNNs, permutations, element-wise cells, convolutions."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from golden_layers import CELL, SCAN, all_states, build, by_evaluator
from golden_linear_attention import linears
from jax import lax

from seqjax.layers.ssm.hippo import transition
from seqjax.learn.cell import Cell
from seqjax.learn.learner import squared_error
from seqjax.learn.rtrl import rtrl_elementwise


def linoss(inputs, meta, *, evaluator):
    u = inputs["u"]
    values = {name: inputs[name] for name in "AD"} | {"dt": inputs["steps"]}
    values |= {name: jnp.moveaxis(inputs[name], -1, 0) for name in "BC"}
    options = dict(state=len(inputs["A"]), discretisation=meta["discretization"], mix=False)
    layer = build("linoss", u.shape[2], values, **options)
    return {"y": layer(u, evaluator=evaluator)[0]}


def hippo_rnn(inputs, meta, *, evaluator):
    x, hyper, measure = inputs["x"], meta["hyper"], meta["measure"]
    features, memories, order = x.shape[2], meta["memory_size"], meta["memory_order"]
    hidden, recurrent = len(inputs["w_W_hxm.weight"]), "w_W_hh.weight" in inputs
    A, B = transition(measure, order)
    values = {"memory.A": A, "memory.B": B}

    def split(theirs, *sizes):
        """Ours -> columns of one matrix of theirs; the first map has its bias."""
        ends = np.cumsum([size for _, size in sizes])[:-1]
        for (name, _), W in zip(sizes, jnp.split(inputs[f"{theirs}.weight"], ends, 1), strict=True):
            values[f"{name}.kernel"] = W.T
        if f"{theirs}.bias" in inputs:
            values[f"{sizes[0][0]}.bias"] = inputs[f"{theirs}.bias"]

    seen = memories * order
    split("w_W_uxh", ("W_ux", features), ("W_uh", hidden))
    split("w_W_hxm", ("W_hx", features), ("W_hm", seen))
    if meta["gate"] == "G":
        old = [("W_gh", hidden)] if recurrent else []
        split("w_W_gxm.W_g", ("W_gx", features), ("W_gm", seen), *old)
    if recurrent:
        values["W_hh.kernel"] = inputs["w_W_hh.weight"].T
    if "w_W_um" in inputs:
        values["W_um"] = inputs["w_W_um"]
    # theirs of LegT has a window of length 1, ours one of length 2
    window = 2 if measure == "legt" else 1
    scaled = measure == "legs"
    time = (
        dict(max_length=hyper["max_length"])
        if scaled
        else dict(dt=window * hyper["dt"] / hyper.get("theta", 1))
    )
    if scaled and evaluator != "sequential":
        evaluator = None  # it has a loop only
    layer = build(
        "hippo_rnn",
        features,
        values,
        hidden=hidden,
        memories=memories,
        order=order,
        measure=measure,
        discretisation=meta["discretization"],
        gate={"G": True, "N": False}[meta["gate"]],
        recurrent=recurrent,
        memory_feedback="w_W_um" in inputs,
        bias="w_W_uxh.bias" in inputs,
        **time,
    )
    states, y = all_states(layer, x, layer.batch_state(len(x), x.dtype), evaluator)
    return {"h": y, "m": states.m}


def pd_ssm(inputs, meta, *, evaluator):
    x, maps = inputs["x"], {"S": "S", "W": "readout"}
    for ours, theirs in (("a", "D_magnitude_generator"), ("b", "D_phase_generator")):
        maps |= {f"{ours}.layers.{n}": f"{theirs}.{n}" for n in (0, 2)}
    values = linears(inputs, maps) | {"A": inputs["w_A_dict"], "D": inputs["w_D"]}
    values |= {"B": jnp.stack([inputs["w_B_re"], inputs["w_B_im"]])}
    values |= {f"norm.{name}": inputs[f"w_norm.{name}"] for name in ("weight", "bias")}
    meta.ignore("smallest_argmax_gap")  # of what is well defined
    N, inner = meta["hidden_size"], len(inputs["w_D_phase_generator.0.bias"])
    options = dict(state=N, dictionary=meta["dictionary_size"], expansion=inner // N)
    layer = build("pd_ssm", x.shape[2], values, **options)
    h, y = all_states(layer, x, layer.batch_state(len(x), x.dtype), evaluator)
    return {"y": y, "h_re": h.real, "h_im": h.imag}


def elstm_layer(inputs, out):
    gates = {name: [inputs[f"w_{name}_{gate}"] for gate in "fz"] for name in ("wm", "wv", "bias")}
    values = {
        "W.kernel": jnp.concatenate(gates["wm"]).T,
        "W.bias": jnp.concatenate(gates["bias"], axis=1)[0],
        "w": jnp.concatenate(gates["wv"]),
    }
    H, features = inputs["w_wm_z"].shape
    return build("elstm", features, values | out, hidden=H)


def elstm(inputs, meta, *, evaluator):
    layer = elstm_layer(inputs, linears(inputs, {"W_o": "out_gate_linear"}))
    y, c = layer(inputs["x"], inputs.get("c0"), evaluator=evaluator)
    return {"y": y, "c_last": c}


def elstm_rtrl(inputs, meta):
    """Sensitivities by the learner: what it keeps of dc/dtheta, one number per parameter."""
    x, names = inputs["x"], [name for name in inputs if name.startswith("w_")]
    H, features = inputs["w_wm_z"].shape
    out = {"W_o.kernel": jnp.zeros((features + H, H)), "W_o.bias": jnp.zeros(H)}
    params = {name: inputs[name] for name in names}

    def one(xs, c0):
        def step(p, c, x):
            layer = elstm_layer(p, out)
            return layer.step(c, layer.drive(x))

        cell = Cell(lambda p: c0, step, lambda p, c, x: c)

        def after(c, x):
            c = step(params, c, x)
            return c, c

        cs = lax.scan(after, c0, xs)[1]
        fixed = lax.stop_gradient(params)
        learner = rtrl_elementwise(cell, squared_error, fixed, xs)
        M = learner.grad(fixed, learner.init(fixed), xs, jnp.zeros_like(cs))[2].M
        return cs, jax.flatten_util.ravel_pytree(fixed)[1](M[:, 0])

    c, found = jax.vmap(one)(x, inputs["c0"])
    return {"c": c} | {
        f"sens_{name[2:]}": M if "wm" in name else M[:, 0] for name, M in found.items()
    }


def tcn(inputs, meta):
    x, channels, values = inputs["x"], meta["channels"], {}
    for n in range(len(channels)):
        for ours, theirs in (("first", "conv1"), ("second", "conv2")):
            name = f"w_network.{n}.{theirs}"
            values[f"{ours}.{n}.v"] = inputs[f"{name}.weight_v"].transpose(2, 1, 0)
            values[f"{ours}.{n}.g"] = inputs[f"{name}.weight_g"].reshape(-1)
            values[f"{ours}.{n}.b"] = inputs[f"{name}.bias"]
        if f"w_network.{n}.downsample.weight" in inputs:
            values[f"residual.{n}.kernel"] = inputs[f"w_network.{n}.downsample.weight"][:, :, 0].T
            values[f"residual.{n}.bias"] = inputs[f"w_network.{n}.downsample.bias"]
    width = meta["kernel_size"]
    meta.expect(receptive_field=1 + 2 * (width - 1) * (2 ** len(channels) - 1))
    layer = build("tcn", x.shape[2], values, channels=tuple(channels), width=width)
    return {"y": layer(x)[0]}


ADAPTERS = {
    "linoss": by_evaluator(linoss, *SCAN[:3]),
    "hippo_rnn": by_evaluator(hippo_rnn, *CELL),
    "pd_ssm": by_evaluator(pd_ssm, "sequential", "associative"),
    "elstm": by_evaluator(elstm, *CELL),
    "elstm_rtrl": {"rtrl_elementwise": elstm_rtrl},
    "tcn": {"taps": tcn},
}
