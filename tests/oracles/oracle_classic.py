"""Oracles of the classic networks, of the options that no golden has; see `test_equations`."""

from itertools import product

import numpy as np
from oracle_tools import sigmoid, softmax

MAPS = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "sigmoid": sigmoid,
    "linear": lambda a: a,
    "2tanh(a/2)": lambda a: 4 * sigmoid(a) - 2,
    "tanh(a/2)": lambda a: 2 * sigmoid(a) - 1,
}


def lstm(
    W, x, *, hidden, gates="ifo", coupled=False, full_recurrence=False, peepholes=False,
    input_activation="tanh", output_activation="tanh", projection=None, non_recurrent=0,
    cell_clip=np.inf, cap_input_gate=False, **_,
):  # fmt: skip
    """Greff et al. 2017, sec. 4, with the projection of Sak et al. 2014."""
    own = [gate for gate in "ifo" if gate in gates and not (coupled and gate == "i")]
    blocks = [name for name in "ifgo" if name == "g" or name in own]
    rows = {name: slice(n * hidden, (n + 1) * hidden) for n, name in enumerate(blocks)}
    R = projection or hidden
    h, c, ys = np.zeros(R + non_recurrent), np.zeros(hidden), []
    was = np.zeros((len(own), hidden))
    for x_t in x:
        a = {name: W.affine("W", x_t)[r] + W["U"][r] @ h[:R] for name, r in rows.items()}
        if full_recurrence:
            recalled = (W["G"] @ was.reshape(-1)).reshape(was.shape)
            a |= {gate: a[gate] + more for gate, more in zip(own, recalled)}
        p = dict(zip(own, W["p"])) if peepholes else dict.fromkeys(own, 0)
        open_ = np.ones(hidden)
        f = sigmoid(a["f"] + p["f"] * c) if "f" in own else open_
        i = sigmoid(a["i"] + p["i"] * c) if "i" in own else 1 - f if coupled else open_
        i = np.minimum(i, 1 - f) if cap_input_gate else i
        c = np.clip(f * c + i * MAPS[input_activation](a["g"]), -cell_clip, cell_clip)
        o = sigmoid(a["o"] + p["o"] * c) if "o" in own else open_
        h = o * MAPS[output_activation](c)
        h = W["P"] @ h if projection else h
        was = np.stack([{"i": i, "f": f, "o": o}[gate] for gate in own])
        ys.append(h)
    return np.stack(ys)


def lstm_1997(W, x, *, hidden, **options):
    return lstm(
        W, x, hidden=hidden, gates="io", input_activation="2tanh(a/2)",
        output_activation="tanh(a/2)", **options,
    )  # fmt: skip


def lstmp(W, x, **options):
    return lstm(W, x, peepholes=True, **options)


def mgu(W, x, *, hidden, **_):
    h, ys = np.zeros(hidden), []
    for x_t in x:
        a = W.affine("W", x_t)
        f = sigmoid(a[:hidden] + W["U"][:hidden] @ h)
        n = np.tanh(a[hidden:] + W["U"][hidden:] @ (f * h))
        h = (1 - f) * h + f * n
        ys.append(h)
    return np.stack(ys)


def janet(W, x, *, hidden, beta, **_):
    h, ys = np.zeros(hidden), []
    for x_t in x:
        a = W.affine("W", x_t) + W["U"] @ h
        s, g = a[:hidden], np.tanh(a[hidden:])
        h = sigmoid(s) * h + (1 - sigmoid(s - beta)) * g
        ys.append(h)
    return np.stack(ys)


def jordan(W, x, *, outputs, activation, output_activation, trace, **_):
    s, ys = np.zeros(outputs), []
    for x_t in x:
        h = MAPS[activation](W.affine("W", x_t) + W.linear("U", s))
        ys.append(MAPS[output_activation](W.affine("V", h)))
        s = trace * s + ys[-1]
    return np.stack(ys)


def convolution(kernel, frame):
    """Zeros beyond the edge, place by place: kernel [*size, C, C'], frame [*shape, C]."""
    *size, _, outputs = kernel.shape
    space = frame.shape[:-1]
    out = np.zeros((*space, outputs))
    for place in product(*map(range, space)):
        for tap in product(*map(range, size)):
            seen = tuple(p + t - k // 2 for p, t, k in zip(place, tap, size))
            if all(0 <= p < n for p, n in zip(seen, space)):
                out[place] += frame[seen] @ kernel[tap]
    return out


def convlstm(W, x, *, shape, channels, peepholes=True, **_):
    H = C = np.zeros((*shape, channels))
    p = W["W_c"] if peepholes else np.zeros((3, *H.shape))
    ys = []
    for x_t in x.reshape(len(x), *shape, -1):
        a = convolution(W["W_x.kernel"], x_t) + W["W_x.bias"] + convolution(W["W_h.kernel"], H)
        i, f, g, o = np.split(a, 4, axis=-1)
        C = sigmoid(f + p[1] * C) * C + sigmoid(i + p[0] * C) * np.tanh(g)
        H = sigmoid(o + p[2] * C) * np.tanh(C)
        ys.append(H.reshape(-1))
    return np.stack(ys)


def md_lstm(W, x, *, columns, hidden, mirrored, **_):
    """Place by place; h and c stand at [row, column], beyond the edges zeros."""
    x = x.reshape(len(x), columns, -1)
    h, c = (np.zeros((len(x) + 1, columns + 2, hidden)) for _ in range(2))
    p = W["p"]
    for row, n in product(range(len(x)), range(columns)):
        column, came = (columns - n, columns - n + 1) if mirrored else (n + 1, n)
        above, before = (row, column), (row + 1, came)
        a = W.affine("W", x[row, column - 1]) + W["U_1"] @ h[above] + W["U_2"] @ h[before]
        i, f_1, f_2, g, o = np.split(a, 5)
        new = sigmoid(i + p[0] * c[above] + p[1] * c[before]) * np.tanh(g)
        new += sigmoid(f_1 + p[2] * c[above]) * c[above]
        new += sigmoid(f_2 + p[3] * c[before]) * c[before]
        c[row + 1, column] = new
        h[row + 1, column] = sigmoid(o + p[4] * new) * np.tanh(new)
    return h[1:, 1:-1].reshape(len(x), -1)


def hopfield(W, x, *, hidden, form, beta=1.0, asynchronous=False, **_):
    s, ys, Xi = np.zeros(hidden), [], W["Xi"]
    f = {"graded": np.tanh, "sign": lambda a: 1.0 if a >= 0 else -1.0}.get(form)
    for x_t in x:
        field, was = W.affine("P", x_t), s.copy()
        if form == "modern":
            s = softmax(beta * Xi @ (s + field)) @ Xi
        for i in range(hidden) if form != "modern" else ():
            seen = s if asynchronous else was
            a = sum(Xi[:, i] @ Xi[:, j] / hidden * seen[j] for j in range(hidden) if j != i)
            s[i] = f(beta * (a + field[i]))
        ys.append(s.copy())
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
    ("lstm_1997", lstm_1997, dict(hidden=3, full_recurrence=True)),
    ("lstmp", lstmp, dict(hidden=5, projection=2, non_recurrent=1, cell_clip=0.3)),
    ("mgu", mgu, dict(hidden=3, chrono=9.0)),
    ("janet", janet, dict(hidden=3, beta=1.0)),
    (
        "jordan",
        jordan,
        dict(hidden=3, outputs=2, activation="relu", output_activation="tanh", trace=0.6),
    ),
    (
        "lstm",
        lstm,
        dict(hidden=3, cap_input_gate=True, forget_bias=-1.0),
    ),
    ("convlstm", convlstm, dict(shape=(3,), channels=2)),
    ("convlstm", convlstm, dict(shape=(1, 3, 2), channels=2, kernel_size=(1, 3, 3))),
    ("convlstm", convlstm, dict(shape=(3, 2), channels=1, kernel_size=(1,), peepholes=False)),
    ("md_lstm", md_lstm, dict(columns=3, hidden=4, peepholes=True, mirrored=True)),
    ("hopfield", hopfield, dict(hidden=3, patterns=2, form="graded", beta=2.0)),
    ("hopfield", hopfield, dict(hidden=5, patterns=2, form="sign", asynchronous=True)),
    ("hopfield", hopfield, dict(hidden=3, patterns=5, form="modern", beta=0.7)),
]
