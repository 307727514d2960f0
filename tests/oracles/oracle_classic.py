"""Oracles of the classic networks, of the options that no golden has; see `test_equations`."""

import numpy as np
from oracle_tools import sigmoid

MAPS = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "sigmoid": sigmoid,
    "linear": lambda a: a,
}


def lstm(
    W, x, *, hidden, gates="ifo", coupled=False, full_recurrence=False, peepholes=False,
    input_activation="tanh", output_activation="tanh", projection=None, cell_clip=np.inf, **_,
):  # fmt: skip
    """Greff et al. 2017, sec. 4, with the projection of Sak et al. 2014."""
    own = [gate for gate in "ifo" if gate in gates and not (coupled and gate == "i")]
    blocks = [name for name in "ifgo" if name == "g" or name in own]
    rows = {name: slice(n * hidden, (n + 1) * hidden) for n, name in enumerate(blocks)}
    h, c, ys = np.zeros(projection or hidden), np.zeros(hidden), []
    was = np.zeros((len(own), hidden))
    for x_t in x:
        a = {name: W.affine("W", x_t)[r] + W["U"][r] @ h for name, r in rows.items()}
        if full_recurrence:
            recalled = (W["G"] @ was.reshape(-1)).reshape(was.shape)
            a |= {gate: a[gate] + more for gate, more in zip(own, recalled)}
        p = dict(zip(own, W["p"])) if peepholes else dict.fromkeys(own, 0)
        open_ = np.ones(hidden)
        f = sigmoid(a["f"] + p["f"] * c) if "f" in own else open_
        i = sigmoid(a["i"] + p["i"] * c) if "i" in own else 1 - f if coupled else open_
        c = np.clip(f * c + i * MAPS[input_activation](a["g"]), -cell_clip, cell_clip)
        o = sigmoid(a["o"] + p["o"] * c) if "o" in own else open_
        h = o * MAPS[output_activation](c)
        h = W["P"] @ h if projection else h
        was = np.stack([{"i": i, "f": f, "o": o}[gate] for gate in own])
        ys.append(h)
    return np.stack(ys)


def elman(
    W, x, *, hidden, activation="tanh", leak=1.0, outputs=None, output_activation="linear",
    feedthrough=False, bias=True, **_,
):  # fmt: skip
    h, ys = np.zeros(hidden), []
    for x_t in x:
        a = (W.affine if bias else W.linear)("W", x_t) + W["U"] @ h
        h = (1 - leak) * h + leak * MAPS[activation](a)
        y = W.linear("C", h) if outputs else h
        y = y + W.linear("D", x_t) if feedthrough else y
        ys.append(MAPS[output_activation](y))
    return np.stack(ys)


CASES = [
    (
        "lstm",
        lstm,
        dict(hidden=3, full_recurrence=True, peepholes=True, cell_clip=0.3),
    ),
    (
        "lstm",
        lstm,
        dict(hidden=5, gates="fo", full_recurrence=True, input_activation="linear", projection=2),
    ),
    (
        "lstm",
        lstm,
        dict(hidden=5, gates="if", peepholes=True, coupled=True, output_activation="linear"),
    ),
    (
        "elman",
        elman,
        dict(
            hidden=3,
            activation="sigmoid",
            leak=0.3,
            outputs=2,
            output_activation="tanh",
            feedthrough=True,
            bias=False,
        ),
    ),
]
