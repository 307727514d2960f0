"""Adapters of the classic networks that are written down twice: MGU, JANET, Jordan's and others."""

from functools import partial

import jax
import jax.numpy as jnp
from golden_layers import CELL, all_states, build, by_evaluator, elman_weights, stack_gates, under

from seqjax.layers.classic import hopfield
from seqjax.layers.classic.lstm import LSTMState


def gates_of(inputs, gates):
    return {
        "W.kernel": stack_gates(inputs, "W", gates).T,
        "W.bias": stack_gates(inputs, "b", gates),
        "U": stack_gates(inputs, "U", gates),
    }


def one_state(inputs, meta, *, name, gates, evaluator, **options):
    x, h = inputs["x"], inputs["h0"]
    layer = build(name, x.shape[2], gates_of(inputs, gates), hidden=h.shape[1], **options)
    return {"y": layer(x, h, evaluator=evaluator)[0]}


def lstm_1997(inputs, meta, *, evaluator):
    x, h = inputs["x"], LSTMState(inputs["h0"], inputs["c0"])
    options = dict(hidden=h.c.shape[1], squash="tanh")
    layer = build("lstm_1997", x.shape[2], gates_of(inputs, "igo"), **options)
    y, last = layer(x, h, evaluator=evaluator)
    return {"y": y, "c": last.c}


def jordan(inputs, meta, *, evaluator):
    x, names = inputs["x"], {"tanh": "tanh", "sig": "sigmoid", "id": "linear"}
    values = {
        "W.kernel": inputs["W"].T,
        "W.bias": inputs["b"],
        "U.kernel": inputs["U"].T,
        "V.kernel": inputs["V"].T,
        "V.bias": inputs["c"],
    }
    H, outputs = inputs["U"].shape
    output_activation = names[meta["output_act"]]
    options = dict(hidden=H, outputs=outputs, output_activation=output_activation)
    layer = build("jordan", x.shape[2], values, **options)
    return {"y": layer(x, inputs["y0"], evaluator=evaluator)[0]}


def mogrifier(inputs, x, values, modulations, evaluator, **options):
    h = LSTMState(inputs["h0"], inputs["c0"])
    for i, found in enumerate(modulations):
        values = values | under(f"QR.{i}", found)
    H, rounds = h.h.shape[1], len(modulations)
    layer = build("mogrifier_lstm", x.shape[2], values, hidden=H, rounds=rounds, **options)
    y, last = layer(x, h, evaluator=evaluator)
    return {"y": y, "c": last.c}


def mogrifier_lamb(inputs, meta, *, evaluator):
    """Columns of W in the order j, o, f, i; i is not there if it is tied to f."""
    x, order = inputs["x"], "jof" if meta["tie_gates"] else "jofi"
    W = jnp.split(inputs["W"], [x.shape[2]])
    columns = [dict(zip(order, jnp.split(w, len(order), axis=-1))) for w in (*W, inputs["b"])]
    kernel, U, bias = (
        jnp.concatenate([w[gate] for gate in "ifjo" if gate in w], axis=-1) for w in columns
    )
    modulations = []
    for i in range(meta["rounds"]):
        if meta["rank"]:
            names = ("layers.0.kernel", "layers.1.kernel", "layers.1.bias")
            given = (f"fm_{i}_weight_a", f"fm_{i}_weight_b", f"fm_{i}_bias")
        else:
            names, given = ("kernel", "bias"), (f"fm_{i}.W", f"fm_{i}.b")
        modulations.append({name: inputs[key] for name, key in zip(names, given)})
    values = {"W.kernel": kernel, "W.bias": bias, "U": U.T}
    options = dict(
        rank=meta["rank"] or None,
        cap_input_gate=meta["cap_input_gate"],
        coupled=meta["tie_gates"],
    )
    return mogrifier(inputs, x, values, modulations, evaluator, **options)


def mogrifier_lstm(inputs, meta, *, evaluator):
    values = {
        "W.kernel": inputs["lstm.weight_ih"].T,
        "W.bias": inputs["lstm.bias_ih"] + inputs["lstm.bias_hh"],
        "U": inputs["lstm.weight_hh"],
    }
    modulations = [
        {
            "kernel": inputs[f"mogrifier_list.{i}.weight"].T,
            "bias": inputs[f"mogrifier_list.{i}.bias"],
        }
        for i in range(meta["mogrify_steps"])
    ]
    x = inputs["x"]
    return mogrifier(inputs, x, values, modulations, evaluator, cap_input_gate=False)


def on_lstm(inputs, meta, *, evaluator):
    x, h = inputs["x"], LSTMState(inputs["h0"], inputs["c0"].reshape(inputs["h0"].shape))
    values = {
        "W.kernel": inputs["ih.0.weight"].T,
        "W.bias": inputs["ih.0.bias"] + inputs["hh.bias"],
        "U": inputs["hh.weight"],
    }
    chunk = meta["chunk_size"]
    layer = build("on_lstm", x.shape[2], values, hidden=h.h.shape[1], chunk=chunk)
    y, last = layer(x, h, evaluator=evaluator)
    forgets, writes = layer.distances(x, h)
    c = last.c.reshape(inputs["c0"].shape)
    return {"y": y, "c": c, "dist_forget": forgets, "dist_in": writes}


def channels_last(frames):
    """[B, T, C, H, W] to [B, T, H W C]."""
    return jnp.moveaxis(frames, 2, 4).reshape(*frames.shape[:2], -1)


def conv_lstm(inputs, meta, *, evaluator):
    """One convolution of [x; h], whose outputs are in the order i, f, o, g."""
    x, values, layers = inputs["x"], {}, []
    inward, space = x.shape[2], x.shape[3:]
    for level in range(meta["num_layers"]):
        weight, bias = (inputs.get(f"cell_list.{level}.conv.{name}") for name in ("weight", "bias"))
        C = len(weight) // 4
        i, f, o, g = (slice(n * C, (n + 1) * C) for n in range(4))
        kernel = jnp.concatenate([weight[rows] for rows in (i, f, g, o)]).transpose(2, 3, 1, 0)
        values |= under(
            f"layers.{level}",
            {
                "W_x.kernel": kernel[:, :, :inward],
                "W_h.kernel": kernel[:, :, inward:],
            },
        )
        if bias is not None:
            bias = jnp.concatenate([bias[rows] for rows in (i, f, g, o)])
            values[f"layers.{level}.W_x.bias"] = bias
        size = tuple(meta["kernel"])
        options = dict(shape=space, channels=C, kernel_size=size, peepholes=False)
        options["bias"] = meta.get("bias", bias is not None)
        layers.append(("convlstm", options))
        inward = C
    stack = build("stacked", x.shape[2] * space[0] * space[1], values, layers=layers)
    y, states = stack(channels_last(x), evaluator=evaluator)
    h, c = (
        jnp.stack([jnp.moveaxis(getattr(s, name), 3, 1) for s in states]) for name in ("h", "c")
    )
    return {"y": jnp.moveaxis(y.reshape(*y.shape[:2], *space, -1), 4, 2), "h": h, "c": c}


def md_lstm(inputs, meta, *, evaluator):
    x, gates = inputs["x"], ("i", "f1", "f2", "g", "o")
    B, rows, columns, channels = x.shape
    values = {
        "W.kernel": stack_gates(inputs, "W", gates).T,
        "W.bias": stack_gates(inputs, "b", gates),
        "U_1": stack_gates(inputs, "U1", gates),
        "U_2": stack_gates(inputs, "U2", gates),
    }
    if meta["peepholes"]:
        values["p"] = jnp.stack([inputs[f"p_{name}"] for name in ("i1", "i2", "f1", "f2", "o")])
    H = len(inputs["b_i"])
    options = dict(columns=columns, hidden=H, peepholes=meta["peepholes"])
    layer = build("md_lstm", columns * channels, values, **options)
    x = x.reshape(B, rows, -1)
    states, y = all_states(layer, x, layer.batch_state(B, x.dtype), evaluator)
    return {"h": y.reshape(B, rows, columns, H), "c": states.c}


def classic_hopfield(inputs, meta):
    s = inputs["s0"]
    W, field = hopfield.hebb(inputs["X"]), jnp.zeros_like(s)
    states = [s]
    for _ in range(4):
        states.append(hopfield.at_once(W, states[-1], field))
    settled = jnp.stack(states[1:])
    energies = jax.vmap(lambda s: hopfield.energy(W, s, field))(settled)
    swept = hopfield.one_by_one(W, s, field)
    return {"W": W, "sync": settled, "energy": energies, "async_one_sweep": swept}


def modern_hopfield(inputs, meta):
    X, s, beta = inputs["X"], inputs["xi"], meta["beta"]
    for _ in range(meta["steps"]):
        s = jax.vmap(lambda s: hopfield.retrieve(X, s, beta))(s)
    return {"xi": s, "energy": jax.vmap(lambda s: hopfield.modern_energy(X, s, beta))(s)}


def awd_weight_drop(inputs, meta, *, evaluator):
    x, h, c = inputs["x"], inputs["h0"][0], inputs["c0"][0]
    values = elman_weights(
        *(inputs[name] for name in ("weight_ih_l0", "weight_hh_l0_raw", "bias_ih_l0", "bias_hh_l0"))
    )
    options = dict(hidden=h.shape[1], weight_drop=meta["p"], by_rows=meta["variational"])
    layer = build("awd_lstm", x.shape[2], values, **options)
    columns = 1 if layer.by_rows else h.shape[1]
    assert inputs["mask"].shape == (len(layer.U[...]), columns)
    y, last = layer.dropped(inputs["mask"])(x, LSTMState(h, c), evaluator=evaluator)
    return {"y": y, "h_n": last.h[None], "c_n": last.c[None]}


ADAPTERS = {
    "awd_weight_drop": by_evaluator(awd_weight_drop, *CELL),
    "mgu": by_evaluator(partial(one_state, name="mgu", gates="fh"), *CELL),
    "janet": by_evaluator(partial(one_state, name="janet", gates="fg", beta=0.0), *CELL),
    "lstm_no_forget": by_evaluator(lstm_1997, *CELL),
    "jordan_rnn": by_evaluator(jordan, *CELL),
    "mogrifier_lamb": by_evaluator(mogrifier_lamb, *CELL),
    "mogrifier_lstm": by_evaluator(mogrifier_lstm, *CELL),
    "on_lstm": by_evaluator(on_lstm, *CELL),
    "conv_lstm": by_evaluator(conv_lstm, "sequential", "parallel_backward"),
    "md_lstm": by_evaluator(md_lstm, "sequential", "parallel_backward"),
    "classic_hopfield": {"functions": classic_hopfield},
    "modern_hopfield": {"functions": modern_hopfield},
}
