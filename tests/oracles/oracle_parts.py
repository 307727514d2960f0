"""Parts that several blocks are made of, once more in NumPy; W are `Weights` of the part."""

import math

import numpy as np
from oracle_tools import causal_conv, silu, softmax, softplus

erf = np.vectorize(math.erf)


def gelu(z):
    return z * (1 + erf(z / 2**0.5)) / 2


def gelu_tanh(z):
    """As jax.nn.gelu is by default."""
    return z * (1 + np.tanh((2 / np.pi) ** 0.5 * (z + 0.044715 * z**3))) / 2


def convolved(W, x):
    """Causal, each channel for itself; the last tap is the present step's."""
    return causal_conv(x, W["weight"], W["bias"])


def glu(W, x, f=silu, *, bias=False):
    linear = W.affine if bias else W.linear
    return linear("W_3", f(linear("W_1", x)) * linear("W_2", x))


def by_block(kernel, x):
    """A matrix for each block of channels."""
    parts = np.split(x, len(kernel), axis=1)
    return np.concatenate([part @ w for part, w in zip(parts, kernel)], axis=1)


def turned(z, t, fraction=1.0, base=1e4):
    """z [K] at position t: channels i and i + R/2 of the first R are a complex number."""
    half = int(len(z) * fraction) // 2
    w = z[:half] + 1j * z[half : 2 * half]
    w = w * np.exp(1j * t * base ** (-np.arange(half) / max(half, 1)))
    return np.concatenate([w.real, w.imag, z[2 * half :]])


def attend(q, k, v, *, window=None, fraction=0.0, base=1e4, scale=None):
    """Softmax attention of q [T, H, K] over the last `window` of k, v [T, G, K]: [T, H * V]."""
    (T, H, K), G = q.shape, k.shape[1]
    y, scale = np.zeros((T, H, v.shape[2])), K**-0.5 if scale is None else scale
    for t in range(T):
        seen = np.arange(max(0, t + 1 - (window or T)), t + 1)
        for h in range(H):  # H / G heads in a row share their keys and values
            g, now = h * G // H, turned(q[t, h], t, fraction, base)
            scores = np.array([now @ turned(k[j, g], j, fraction, base) for j in seen])
            y[t, h] = softmax(scale * scores) @ v[seen, g]
    return y.reshape(T, -1)


def attention(W, x, heads, *, kv_heads=None, out_bias=False, **options):
    q, k, v = (
        W.linear(f"W_{name}", x).reshape(len(x), n, -1)
        for name, n in zip("qkv", (heads, kv_heads or heads, kv_heads or heads))
    )
    return (W.affine if out_bias else W.linear)("W_o", attend(q, k, v, **options))


def mamba(W, x, *, norms=False):
    """2312.00752 alg. 2 in the block of fig. 3; Jamba norms delta, B and C."""
    (d, N), R = W["A_log"].shape, len(W["W_dt.kernel"])
    u, z = np.split(W.linear("W_in", x), 2, axis=1)
    u = silu(convolved(W.under("conv"), u))
    parts = np.split(W.linear("W_x", u), (R, R + N), axis=1)
    if norms:
        parts = [W.rms(f"norms.{i}", v, 1e-6) for i, v in enumerate(parts)]
    delta, B, C = parts
    dt, A = softplus(W.linear("W_dt", delta) + W["dt_bias"]), -np.exp(W["A_log"])
    h, y = np.zeros((d, N)), []
    for t in range(len(x)):
        h = np.exp(dt[t][:, None] * A) * h + np.outer(dt[t] * u[t], B[t])
        y.append(h @ C[t] + W["D"] * u[t])
    return W.linear("W_out", np.stack(y) * silu(z))


def experts(W, x, top, *, score, bias=0.0, renormalise=True, scale=1.0, groups=1, top_groups=1):
    """Token by token: its `top` best experts, by score and bias, within the best groups."""
    every, y = list(zip(W["W_1"], W["W_2"], W["W_3"])), []
    for token in x:
        s = score(W.linear("W_r", token))
        rank = np.array(s + bias).reshape(groups, -1)
        if groups > 1:  # a group is as good as its two best
            best = np.sort(rank, axis=1)[:, -2:].sum(1)
            rank[np.argsort(best)[: groups - top_groups]] = -np.inf
        chosen = np.argsort(-rank.reshape(-1))[:top]
        weight = scale * s[chosen] / (s[chosen].sum() if renormalise else 1)
        outputs = [(silu(token @ w1) * (token @ w2)) @ w3 for w1, w2, w3 in every]
        y.append(sum(w * outputs[e] for w, e in zip(weight, chosen)))
    return np.stack(y)
