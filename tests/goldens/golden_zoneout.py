"""Goldens of haste (arXiv:1606.01305 zoneout, 1607.06450 norms): its LSTM, GRU and IndRNN."""

import jax.numpy as jnp
from golden_layers import all_states, build, by_evaluator, under

from seqjax.layers.classic.lstm import LSTMState

CELL = ("sequential", "newton", "parallel_backward")


def blocks(order, *arrays):
    """The blocks of each array's last axis in another order."""
    found = []
    for array in arrays:
        parts = jnp.split(array, len(order), axis=-1)
        found.append(jnp.concatenate([parts[n] for n in order], axis=-1))
    return found


def normed(inputs, order, values, bias):
    """The parameters with `bias`, which W has or, with the gains of two norms, the first norm."""
    if "gamma" not in inputs:
        return values | {"W.bias": bias}
    (gamma,) = blocks(order, inputs["gamma"])
    return values | {
        "norm_x.weight": gamma[0],
        "norm_x.bias": bias,
        "norm_h.weight": gamma[1],
    }


def zoned(inputs, meta, name, values, h, evaluator, **options):
    """All states of the layer inside zoneout, whose masks come in with x."""
    x, p, training = inputs["x"], meta["zoneout"], meta["training"]
    masks = inputs.get("zoneout_mask", jnp.zeros((*x.shape[:2], 0), x.dtype))
    assert not masks.shape[2] or training, "a mask is drawn in training"
    layer = build(
        "zoneout",
        x.shape[2] + masks.shape[2],
        under("layer", values),
        layer=(name, options),
        rate=p if masks.shape[2] or not training else 0.0,
        masks=masks.shape[2],
    )
    return all_states(layer, jnp.concatenate([x, masks], axis=2), h, evaluator)


def lstm(inputs, meta, *, evaluator):
    order = (0, 2, 1, 3)  # of i, g, f, o
    kernel, U, bias = blocks(
        order, *(inputs[name] for name in ("kernel", "recurrent_kernel", "bias"))
    )
    values = normed(inputs, order, {"W.kernel": kernel, "U": U.T}, bias)
    if "gamma" in inputs:
        values |= {"norm_c.weight": inputs["gamma_h"], "norm_c.bias": inputs["beta_h"]}
    h = LSTMState(inputs["h0"], inputs["c0"])
    options = dict(hidden=h.h.shape[1], norm="gamma" in inputs)
    states, y = zoned(inputs, meta, "lstm", values, h, evaluator, **options)
    return {"h": y, "c": states.c}


def gru(inputs, meta, *, evaluator):
    order, H = (1, 0, 2), inputs["h0"].shape[1]  # of z, r, g
    kernel, U, bias, recurrent = blocks(
        order,
        *(inputs[n] for n in ("kernel", "recurrent_kernel", "bias", "recurrent_bias")),
    )
    gates = recurrent.at[2 * H :].set(0)
    values = {"W.kernel": kernel, "U": U.T, "c_n": recurrent[2 * H :]}
    values = normed(inputs, order, values, bias + gates)
    options = dict(hidden=H, reset="after", norm="gamma" in inputs)
    return {"h": zoned(inputs, meta, "gru", values, inputs["h0"], evaluator, **options)[1]}


def indrnn(inputs, meta, *, evaluator):
    u = inputs["recurrent_scale"]
    values = {"W.kernel": inputs["kernel"], "u": u}
    if "gamma" in inputs:
        values |= {"norm.weight": inputs["gamma"][0], "norm.bias": inputs["bias"]}
    else:
        values["W.bias"] = inputs["bias"]
    options = dict(hidden=len(u), activation="tanh", bound=None, norm="gamma" in inputs)
    return {"h": zoned(inputs, meta, "indrnn", values, inputs["h0"], evaluator, **options)[1]}


ADAPTERS = {
    "haste_lstm": by_evaluator(lstm, *CELL),
    "haste_ln_lstm": by_evaluator(lstm, *CELL),
    "haste_gru": by_evaluator(gru, *CELL),
    "haste_ln_gru": by_evaluator(gru, *CELL),
    "haste_indrnn": by_evaluator(indrnn, *CELL),
    "haste_ln_indrnn": by_evaluator(indrnn, *CELL),
}
