"""Oracles of decoders that look at a source; see `test_equations`. h [S, features]: the steps of
the source that are there."""

import numpy as np
from oracle_tools import sigmoid, softmax


def gated(W, s, a):
    """GRU of state s and of what enters its gates and its candidate; U has the rows r, z, n."""
    H = len(s)
    U = W["cell.U"]
    r, z = sigmoid(a[:H] + U[:H] @ s), sigmoid(a[H : 2 * H] + U[H : 2 * H] @ s)
    return z * s + (1 - z) * np.tanh(a[2 * H :] + U[2 * H :] @ (r * s))


def scores(W, q, h, score):
    """e_j of every step of the source."""
    if score == "dot":
        return np.array([h_j @ q for h_j in h])
    if score == "general":
        return np.array([h_j @ W.linear("W_a", q) for h_j in h])
    z = W.affine("W_a", q) if score == "mlp" else W.linear("W_a", q)
    return np.array([W.linear("v_a", np.tanh(z + W.linear("U_a", h_j)))[0] for h_j in h])


def context(W, q, h, score, window):
    e = scores(W, q, h, score)
    if window is None:
        return softmax(e) @ h
    p = len(h) * sigmoid(W.linear("v_p", np.tanh(W.linear("W_p", q)))[0])
    near = [j for j in range(len(h)) if abs(j + 1 - p) <= window]
    c = np.zeros(h.shape[1])
    for j, a in zip(near, softmax(e[near]) if near else ()):
        c += a * np.exp(-((j + 1 - p) ** 2) / (2 * (window / 2) ** 2)) * h[j]
    return c


def bahdanau(W, x, *, h, hidden, deep=None, window=None, **_):
    s, ys = np.tanh(W.affine("W_s", h[0])), []
    for x_t in x:
        c = context(W.under("align"), s, h, "additive", window)
        before = s
        s = gated(W, s, W.affine("cell.W", x_t) + W.linear("C", c))
        if deep == 0:
            ys.append(s)
            continue
        pairs = W.affine("O", np.concatenate([before, x_t, c])).reshape(-1, 2)
        ys.append(np.array([max(pair) for pair in pairs]))
    return np.stack(ys)


def luong(W, x, *, h, hidden=None, score, window=None, **_):
    s = np.tanh(W.affine("W_s", h[0]))
    attended, ys = np.zeros_like(s), []
    for x_t in x:
        s = gated(W, s, W.affine("cell.W", x_t) + W.linear("C", attended))
        joined = np.concatenate([context(W.under("align.align"), s, h, score, window), s])
        mlp = score == "mlp"
        attended = W.affine("align.W_c", joined) if mlp else np.tanh(W.linear("align.W_c", joined))
        ys.append(attended)
    return np.stack(ys)


def lstm(W, state, x):
    """With peepholes; W has the rows i, f, g, o."""
    h, c = state
    i, f, g, o = np.split(W.affine("W", x) + W["U"] @ h, 4)
    p = W["p"]
    c = sigmoid(f + p[1] * c) * c + sigmoid(i + p[0] * c) * np.tanh(g)
    return sigmoid(o + p[2] * c) * np.tanh(c), c


def handwriting(W, x, *, h, hidden, depth, components, **_):
    layers = [(np.zeros(hidden), np.zeros(hidden)) for _ in range(depth)]
    w, kappa, ys = np.zeros(h.shape[1]), np.zeros(components), []
    for x_t in x:
        layers[0] = lstm(W.under("cells.0"), layers[0], np.concatenate([x_t, w]))
        alpha, beta, move = np.split(np.exp(W.affine("W_p", layers[0][0])), 3)
        kappa, w = kappa + move, np.zeros(h.shape[1])
        for u, c_u in enumerate(h):
            w += sum(a * np.exp(-b * (k - u - 1) ** 2) for a, b, k in zip(alpha, beta, kappa)) * c_u
        for n in range(1, depth):
            below = np.concatenate([x_t, w, layers[n - 1][0]])
            layers[n] = lstm(W.under(f"cells.{n}"), layers[n], below)
        ys.append(W.affine("V", np.concatenate([state[0] for state in layers])))
    return np.stack(ys)


CASES = [
    ("bahdanau", bahdanau, dict(hidden=5, align=3, deep=4)),
    ("bahdanau", bahdanau, dict(hidden=5, align=3, deep=0, window=2)),
    ("bahdanau", luong, dict(score="dot")),
    ("bahdanau", luong, dict(hidden=5, score="general", window=2, align=3)),
    ("bahdanau", luong, dict(hidden=5, score="concat", align=3)),
    ("bahdanau", luong, dict(hidden=5, score="mlp", align=3)),
    ("mdn_handwriting", handwriting, dict(hidden=5, depth=3, components=2)),
]
