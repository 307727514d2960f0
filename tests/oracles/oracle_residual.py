"""Oracles of residual and highway recurrences, of what no golden has; see `test_equations`."""

import numpy as np
from oracle_classic import MAPS, lstm
from oracle_tools import causal_conv, sigmoid, silu, softmax, softplus


def transition(W, s, x_t, H, coupled):
    """The layers of a recurrent highway network, one after the other."""
    for layer, (R, b) in enumerate(zip(W["R"], W["b"])):
        a = R @ s + b + (W.linear("W", x_t) if layer == 0 else 0)
        h, t = np.tanh(a[:H]), sigmoid(a[H : 2 * H])
        s = h * t + s * (1 - t if coupled else sigmoid(a[2 * H :]))
    return s


def highway_rnn(W, x, *, hidden, coupled, **_):
    s, ys = np.zeros(hidden), []
    for x_t in x:
        s = transition(W, s, x_t, hidden, coupled)
        ys.append(s)
    return np.stack(ys)


def highway_state_gating(W, x, *, hidden, coupled, **_):
    y, ys = np.zeros(hidden), []
    for x_t in x:
        s = transition(W, y, x_t, hidden, coupled)
        g = sigmoid(W.linear("W_s", y) + W.affine("W_L", s))
        y = g * y + (1 - g) * s
        ys.append(y)
    return np.stack(ys)


def highway_lstm(W, x, *, hidden, depth, **_):
    """With peepholes, layer by layer, over all steps of each."""
    below, c_below = x, None
    for level in range(depth):
        own = W.under(f"layers.{level}")
        h, c, hs, cs = np.zeros(hidden), np.zeros(hidden), [], []
        for t, x_t in enumerate(below):
            i, f, g, o = np.split(own.affine("W", x_t) + own["U"] @ h, 4)
            p_i, p_f, p_o = own["p"]
            new = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
            if level:
                gate = W.under(f"gates.{level - 1}")
                w_c, w_l = gate["w"]
                new += sigmoid(gate.affine("W", x_t) + w_c * c + w_l * c_below[t]) * c_below[t]
            c = new
            h = sigmoid(o + p_o * c) * np.tanh(c)
            hs.append(h)
            cs.append(c)
        below, c_below = np.stack(hs), cs
    return below


def residual_rnn(W, x, *, hidden, **_):
    h, ys = np.zeros(hidden), []
    for x_t in x:
        F = h
        for k, a in enumerate(np.split(W.affine("W", x_t), len(W["U"]))):
            F = np.tanh(a + W["U"][k] @ F)
        h = h + F
        ys.append(h)
    return np.stack(ys)


def residual_stacked_rnn(W, x, *, layers, **_):
    for level, (_, options) in enumerate(layers):
        x = x + lstm(W.under(f"layers.{level}"), x, **options)
    return x


def residual_time_gru(W, x, *, hidden, **_):
    h, ys = np.zeros(hidden), []
    for x_t in x:
        r, z, g, n = np.split(W.affine("W", x_t), 4)
        U_r, U_z, U_g, U_n = np.split(W["U"], 4)
        r, z, g = sigmoid(r + U_r @ h), sigmoid(z + U_z @ h), sigmoid(g + U_g @ h)
        h = z * h + (1 - z) * (np.tanh(n + U_n @ (r * h)) + g * h)
        ys.append(h)
    return np.stack(ys)


def sctt_rnn(W, x, *, hidden, skip, strength, leak, activation, **_):
    h = {-n: np.zeros(hidden) for n in range(1, skip + 1)}
    for t, x_t in enumerate(x):
        f = MAPS[activation](W.affine("W", x_t) + W["U"] @ h[t - 1])
        h[t] = (1 - leak) * h[t - 1] + leak * f + strength * (h[t - skip] - h[t - 1])
    return np.stack([h[t] for t in range(len(x))])


def log_add(a, b):
    """Of numbers as (log|a|, sign a)."""
    (log_a, sign_a), (log_b, sign_b) = (a, b) if a[0] >= b[0] else (b, a)
    return log_a + np.log1p(sign_a * sign_b * np.exp(log_b - log_a)), sign_a


def log_polynomial(W, x, *, groups, **_):
    """In logarithms, entry by entry, as the project computes it."""
    log_r = np.minimum(W["log_r"], -0.1)
    h, ys = [(-np.inf, 1.0) for _ in log_r], []
    for x_t in x:
        u = W.linear("P", x_t)
        w, a, d = W.linear("W", u), W.affine("W_a", u), W.affine("W_d", u)
        a = 1 + np.minimum(softplus(a), 1)
        for n, (log_h, sign) in enumerate(h):
            read = 0.5 * np.log(w[n] ** 2 + 1e-12), 1.0 if w[n] >= 0 else -1.0
            log_v, sign_v = log_add((log_r[n] + log_h, sign), read)
            log_n = -softplus(-a[n] * log_v)
            log_d, log_kept = -softplus(-d[n]), -softplus(d[n])
            h[n] = log_add((log_kept + log_h, sign), (log_d + log_n, sign_v))
        log_h, signs = map(np.array, zip(*h))
        log_rms = 0.5 * np.log(np.mean(np.exp(2 * log_h)) + 1e-12)
        k = W["gamma"] * signs * np.exp(log_h - log_rms)
        chosen = np.concatenate([softmax(part) for part in np.split(k, groups)])
        ys.append(W.linear("Q", chosen * silu(W.linear("V", k))))
    return np.stack(ys)


def heterogeneous_residual(W, x, *, hidden, **_):
    h, ys = np.zeros(hidden), []
    for x_t in x:
        h = W["alpha"] * h + W["beta"] * np.tanh(W["W"] @ h + W["U"] @ x_t + W["b"])
        ys.append(h)
    return np.stack(ys)


def e88(
    W, x, *, heads, key_size, value_size, conv=0, linear_state=False, simple_decay=False,
    gate="none", norm=False, **_,
):  # fmt: skip
    """Head by head."""
    H, K, V = heads, key_size, value_size
    qkv = W.linear("W_qkv", x)
    qkv = silu(causal_conv(qkv, W["conv.weight"]) if conv else qkv)
    a = W.linear("W_a", x)
    a = sigmoid(a) if simple_decay else np.exp(-np.exp(W["A_log"]) * softplus(a + W["dt_bias"]))
    o = np.zeros((len(x), H, V))
    for h in range(H):
        S = np.zeros((K, V))
        for t, row in enumerate(qkv):
            q, k = (row[n * H * K + h * K :][:K] for n in range(2))
            q, k = (z / (np.linalg.norm(z) + 1e-6) for z in (q, k))
            S = a[t, h] * S + np.outer(k, row[2 * H * K + h * V :][:V] - S.T @ k)
            S = S if linear_state else np.tanh(S)
            o[t, h] = S.T @ q
    o = (W.rms("norm", o, 1e-5) if norm else o).reshape(len(x), -1)
    if gate != "none":
        o = o * {"silu": silu, "sigmoid": sigmoid}[gate](W.linear("Z", x))
    return W.linear("Q", o)


CASES = [
    ("highway_rnn", highway_rnn, dict(hidden=3, depth=2, coupled=False)),
    ("highway_state_gating", highway_state_gating, dict(hidden=3, depth=2, coupled=True)),
    ("highway_lstm", highway_lstm, dict(hidden=3, depth=3, peepholes=True)),
    ("residual_rnn", residual_rnn, dict(hidden=3, depth=2)),
    (
        "residual_stacked_rnn",
        residual_stacked_rnn,
        dict(layers=(("lstm", dict(hidden=6)), ("lstm", dict(hidden=6, peepholes=True)))),
    ),
    ("residual_time_gru", residual_time_gru, dict(hidden=3)),
    (
        "sctt_rnn",
        sctt_rnn,
        dict(hidden=3, skip=3, strength=0.4, leak=0.3, activation="relu"),
    ),
    ("log_polynomial", log_polynomial, dict(expansion=0.5, groups=1)),
    ("log_polynomial", log_polynomial, dict(expansion=2.0, groups=3)),
    ("heterogeneous_residual", heterogeneous_residual, dict(hidden=3, reservoir=True)),
    (
        "e88",
        e88,
        dict(heads=2, key_size=3, value_size=2, conv=3, gate="sigmoid", norm=True),
    ),
    (
        "e88",
        e88,
        dict(heads=2, key_size=3, value_size=2, simple_decay=True, linear_state=True, gate="silu"),
    ),
]
