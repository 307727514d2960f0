"""Oracles of recurrences and attention in one layer; see `test_equations`."""

from functools import partial
from math import erf

import numpy as np
from oracle_slots import turned
from oracle_tools import T, heads_of, sigmoid, silu, softmax, standard, unit


def causal_attention(q, k, v, window):
    """[T, heads, K]: every head over the last `window` steps."""
    y = np.zeros(v.shape)
    for t in range(T):
        seen = slice(max(0, t + 1 - window), t + 1)
        for h in range(v.shape[1]):
            y[t, h] = softmax(k[seen, h] @ q[t, h] / q.shape[2] ** 0.5) @ v[seen, h]
    return y


def attended(W, x, heads, window):
    q, k, v = (heads_of(W.affine(f"W_{name}", x), heads) for name in "qkv")
    return W.affine("W_o", causal_attention(q, k, v, window).reshape(T, -1))


def standardised(W, x):
    return W["a"] * (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1)[:, None] + 1e-6) + W["b"]


def rnn(W, z):
    h = np.zeros(len(W["U"]))
    for x in z:
        h = np.tanh(W.affine("W", x) + W["U"] @ h)
    return h


def lstm(W, z):
    h = c = np.zeros(W["U"].shape[1])
    for x in z:
        i, f, g, o = np.split(W.affine("W", x) + W["U"] @ h, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def r_transformer(W, x, *, cell, width, local_layers, heads, window, **_):
    for n in range(local_layers):
        z = standardised(W.under(f"norms.{n}"), x)
        z = np.concatenate([np.zeros((width - 1, z.shape[1])), z])
        last = dict(rnn=rnn, lstm=lstm)[cell]
        x = x + [last(W.under(f"local.{n}.rnn"), z[t : t + width]) for t in range(T)]
    z = standardised(W.under(f"norms.{local_layers}"), x)
    x = x + attended(W.under("attention"), z, heads, window)
    z = standardised(W.under(f"norms.{local_layers + 1}"), x)
    return x + W.affine("feed.W_2", np.maximum(W.affine("feed.W_1", z), 0))


def rpe_rnn(W, x, *, rpe_size, form, heads, rpe_heads, window, **_):
    """With a tanh network; `attention.0` is over p, or over both."""
    u, w = x[:, :-rpe_size], x[:, -rpe_size:]
    r = np.stack([rnn(W.under("rnn"), w[: t + 1]) for t in range(T)])
    n = u.shape[1]
    angle = np.arange(T)[:, None] / 10_000.0 ** (2 * np.arange(-(-n // 2)) / n)
    p = u + np.concatenate([np.sin(angle), np.cos(angle)], 1)[:, :n]
    given = [(p, heads), (r, rpe_heads)] if form == "heads" else [(np.hstack([p, r]), heads)]
    heads_over, y = [], []
    for k, (z, count) in enumerate(given):
        part = W.under(f"attention.{k}")
        q, k, v = (heads_of(part.linear(f"W_{name}", z), count) for name in "qkv")
        heads_over.append(causal_attention(q, k, v, window).reshape(T, -1))
        y.append(part["W_o.kernel"])
    return np.hstack(heads_over) @ np.vstack(y)


def rem(W, t_minus_s, kinds):
    """The matrices P [heads, T, T]."""
    regular, cosine, sine = kinds
    gamma, theta = sigmoid(W["nu"]), W["theta"]
    found = [np.tanh(eta) ** t_minus_s for eta in W["eta"]]
    for k in range(cosine + sine):
        wave = np.cos if k < cosine else np.sin
        found.append(gamma[k] ** t_minus_s * wave(t_minus_s * theta[k]))
    return np.tril(np.stack(found), -1)


def rsa(W, x, *, heads, window, kinds, positions="rotary", **_):
    q, k, v = (heads_of(W.linear(f"W_{name}", x), heads) for name in "qkv")
    if positions == "rotary":
        q, k = turned(q), turned(k)
    y = causal_attention(q, k, v, window)
    distance = np.maximum(np.arange(T)[:, None] - np.arange(T)[None], 0)
    g = sigmoid(W["mu"])
    for h, P in enumerate(rem(W, distance, kinds)):
        y[:, h] = (1 - g[h]) * y[:, h] + g[h] * P @ v[:, h]
    return W.linear("W_o", y.reshape(T, -1))


def memformer(W, x, *, length, depth, heads, causal=True, temperature=1.0, **_):
    """With normalised slots; distances below 8 have buckets of their own."""
    m, y = unit(W["b"]), []
    for begin in range(0, T, length):
        z = x[begin : begin + length]
        n = len(z)
        away = np.arange(n)[:, None] - np.arange(n)[None]
        bias = W["distances"][np.where(away < 0, 16 - away, away)]
        for k in range(depth):
            block = W.under(f"blocks.{k}")
            u = block.layer_norm("norms.0", z, 1e-5)
            z = z + multi_head(block.under("self_attention"), u, u, heads, bias, causal)
            u = block.layer_norm("norms.1", z, 1e-5)
            z = z + multi_head(block.under("cross"), u, m, heads)
            u = block.affine("feed.W_1", block.layer_norm("norms.2", z, 1e-5))
            z = z + block.affine("feed.W_2", u * (1 + np.vectorize(erf)(u / 2**0.5)) / 2)
        z = W.layer_norm("norm", z, 1e-5)
        y.append(z)
        if n == length or not causal:
            m = unit(slots_after(W.under("write"), m, z, heads, temperature) + W["b"])
    return np.concatenate(y)


def multi_head(W, x, z, heads, bias=None, causal=False):
    q = heads_of(W.affine("W_q", x), heads)
    k, v = (heads_of(W.affine(f"W_{name}", z), heads) for name in "kv")
    y = np.zeros(q.shape)
    for t in range(len(x)):
        seen = slice(0, t + 1 if causal else None)
        for h in range(heads):
            scores = k[seen, h] @ q[t, h] / q.shape[2] ** 0.5
            y[t, h] = softmax(scores + (0 if bias is None else bias[t, seen, h])) @ v[seen, h]
    return W.affine("W_o", y.reshape(len(x), -1))


def slots_after(W, m, y, heads, temperature):
    new = []
    for slot in m:  # it sees itself, as it is, and the outputs
        q = heads_of(W.linear("W_q", slot[None]), heads)[0]
        k = heads_of(W.linear("W_k", np.vstack([slot, y])), heads)
        v = heads_of(np.vstack([slot, W.linear("W_v", y)]), heads)
        scores = np.einsum("hk,shk->hs", q, k) / q.shape[1] ** 0.5 / temperature
        new.append(np.einsum("hs,shk->hk", softmax(scores), v).ravel())
    return np.stack(new)


def s4d(W, x):
    """The convolution with its kernel, [T, channels]."""
    A = -np.exp(W["log_A_re"]) + 1j * W["A_im"]
    B, C = (part[0] + 1j * part[1] for part in (W["B"], W["C"]))
    step = np.exp(W["log_dt"])[:, None] * A
    B = (np.exp(step) - 1) / A * B
    K = [2 * (C * B * np.exp(lag * step)).sum(1).real for lag in range(len(x))]
    y = [sum(K[t - s] * x[s] for s in range(t + 1)) for t in range(len(x))]
    return np.stack(y) + W["D"] * x


def block_state(W, x, *, form, length, heads, filters=1, **_):
    D = x.shape[1]
    count = dict(single=1, multi=heads, filter=filters)[form]
    c = s4d(W.under("ssm"), np.tile(x, count)).reshape(T, count, D)
    part = W.under("attention")
    q, k, v = (heads_of(part.linear(f"W_{name}", x), heads) for name in "qkv")
    y = part.linear("W_o", causal_attention(turned(q), turned(k), v, length).reshape(T, -1))
    q, z = heads_of(W.linear("W_q", x), heads), np.zeros(q.shape)
    for t in range(T):
        begin = t - t % length
        for h in range(heads):
            if form == "filter":
                seen = (c[begin - 1] if begin else np.zeros((count, D))) + W["ids"]
            else:
                seen = c[begin : t + 1, h if form == "multi" else 0]
            k, v = (heads_of(W.linear(f"W_{name}", seen), heads)[:, h] for name in "kv")
            z[t, h] = softmax(k @ q[t, h] / q.shape[2] ** 0.5) @ v
    return y + W.linear("W_o", z.reshape(T, -1))


def over_all(q, k, v):
    """[n, heads, K] of queries that see all keys."""
    y = np.zeros(q.shape)
    for t, h in np.ndindex(q.shape[:2]):
        y[t, h] = softmax(k[:, h] @ q[t, h] / q.shape[2] ** 0.5) @ v[:, h]
    return y


def transformer(W, x, depth, heads):
    for n in range(depth):
        block = W.under(f"blocks.{n}")
        z = block.rms("norm", x, 1e-6)
        q, k, v = (heads_of(block.linear(f"W_{name}", z), heads) for name in "qkv")
        x = x + block.linear("W_o", over_all(turned(q), turned(k), v).reshape(len(x), -1))
        z = block.rms("feed_norm", x, 1e-6)
        inner = silu(block.linear("feed.W_1", z)) * block.linear("feed.W_2", z)
        x = x + block.linear("feed.W_3", inner)
    return W.rms("norm", x, 1e-6)


def gru(W, z, h):
    """With the reset before the product."""
    r, u, n = np.split(W.affine("W", z), 3)
    U_r, U_u, U_n = np.split(W["U"], 3)
    r, u = sigmoid(r + U_r @ h), sigmoid(u + U_u @ h)
    return u * h + (1 - u) * np.tanh(n + U_n @ (r * h))


def grus(W, x):
    h, found = np.zeros(W["U"].shape[1]), []
    for z in x:
        h = gru(W, z, h)
        found.append(h)
    return np.stack(found)


def arn(W, x, *, heads, recurrence="arn", fusion="gate", short_cut=True, depth=1, **_):
    e, part = transformer(W.under("transformer"), x, depth, heads), W.under("recurrence")
    H = x if short_cut else e
    if recurrence == "birnn":
        both = grus(part.under("both.forward"), H), grus(part.under("both.backward"), H[::-1])[::-1]
        r = part.affine("W", np.hstack(both))
    else:
        h, r = np.zeros(x.shape[1]), []
        for _ in x:
            c = multi_head(part.under("attention"), h[None], H, heads)[0]
            h = gru(part.under("gru"), c, h)
            r.append(h)
        r = np.stack(r)
    if fusion == "stack":
        return e + multi_head(W.under("stack"), e, r, heads)
    g = sigmoid(W.affine("W", np.hstack([e, r])))
    return g * e + (1 - g) * r


def gated(W, z):
    return W.affine("W_2", z) * sigmoid(W.affine("W_1", z))


def ran(W, x, *, length, heads, causal=True, review=False, **_):
    part, cell, y, cells = W.under("attention"), W["g"], [], []
    for begin in range(0, T, length):
        z = W.layer_norm("norm", np.vstack([cell, x[begin : begin + length]]), 1e-5)
        q, k, v = (heads_of(silu(part.affine(f"W_{name}", z)), heads) for name in "qkv")
        q, k, o = turned(q, len(z)), turned(k, len(z)), np.zeros(q.shape)
        for t in range(len(z)):
            seen = slice(0, t + 1 if causal and t else None)
            o[t] = over_all(q[t : t + 1], k[seen], v[seen])[0]
        o = silu(part.affine("W_o", o.reshape(len(z), -1))) + gated(part.under("glu"), z)
        o = standard(part.layer_norm("norm", o, 1e-5), 1e-5)
        cell = o[0]
        if cells:
            cell = W.layer_norm("cell_norm", cell + gated(W.under("cell_glu"), cells[-1]), 1e-5)
        cells.append(o[0])
        y.append(o[1:])
    y, cells = np.concatenate(y), np.stack(cells)
    if not review:
        return W.layer_norm("out_norm", y, 1e-5)
    part = W.under("review")
    q = silu(part.affine("W_q", y))
    k, v = (silu(part.affine(f"W_{name}", cells)) for name in "kv")
    o = over_all(q[:, None], k[:, None], v[:, None])[:, 0]
    return part.layer_norm("norm", silu(part.affine("W_o", o)) + gated(part.under("glu"), q), 1e-5)


def rnn_mlp(W, x, *, depth=1, widths, **_):
    """With LSTMs; `modules` are the norm, then each LSTM and its norm, then each map and relu."""
    part = W.under("modules")
    x = part.layer_norm("0", x, 1e-6)
    for n in range(1, 2 * depth, 2):
        cell = part.under(str(n))
        x = np.stack([lstm(cell, x[: t + 1]) for t in range(T)])
        x = part.layer_norm(str(n + 1), x, 1e-6)
    for n in range(len(widths)):
        x = np.maximum(part.affine(str(2 * depth + 1 + 2 * n), x), 0)
    return x


CASES = [
    (
        "r_transformer",
        r_transformer,
        dict(cell="lstm", width=3, local_layers=1, heads=2, window=4, expansion=1.5),
    ),
    (
        "r_transformer",
        r_transformer,
        dict(cell="rnn", width=4, local_layers=2, heads=3, window=9, expansion=0.5),
    ),
    (
        "rpe_rnn",
        rpe_rnn,
        dict(rpe_size=2, form="heads", heads=2, rpe_heads=1, window=4),
    ),
    ("rpe_rnn", rpe_rnn, dict(rpe_size=3, form="parts", heads=2, rpe_heads=1, window=9)),
    (
        "rsa",
        partial(rsa, kinds=(2, 1, 1)),
        dict(heads=5, head_size=2, regular=2, cosine=1, sine=1, window=4),
    ),
    (
        "rsa",
        partial(rsa, kinds=(0, 1, 2)),
        dict(heads=3, cosine=1, sine=2, window=9, positions="none"),
    ),
    ("memformer", memformer, dict(length=3, slots=2, depth=2, heads=3, temperature=0.7)),
    (
        "memformer",
        memformer,
        dict(length=4, slots=5, depth=1, heads=2, causal=False, expansion=1.5),
    ),
    ("block_state", block_state, dict(form="single", length=3, heads=3, state=4)),
    ("block_state", block_state, dict(form="multi", length=4, heads=3, state=4)),
    ("block_state", block_state, dict(form="filter", length=2, heads=3, filters=5, state=2)),
    ("arn", arn, dict(heads=3, depth=2, expansion=0.5)),
    ("arn", arn, dict(heads=1, fusion="stack", short_cut=False, expansion=0.5)),
    ("arn", arn, dict(heads=3, recurrence="birnn", expansion=0.5)),
    ("ran", ran, dict(length=3, heads=3)),
    ("ran", ran, dict(length=2, heads=3, causal=False)),
    ("ran", ran, dict(length=3, heads=1, causal=False, review=True)),
    ("rnn_mlp", rnn_mlp, dict(depth=2, hidden=5, widths=(3, 4))),
]
