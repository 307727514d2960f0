"""Oracles of layers over segments; see `test_equations`."""

import numpy as np
from oracle_tools import flat, heads_of, outer, sigmoid, silu, softmax


def segments_of(x, length):
    return [x[n : n + length] for n in range(0, len(x), length)]


def attention(q, k, v, seen=None, scores=0.0):
    """q [n, H, d], k and v [m, H, d]; seen [n, m]; scores [H, n, m] are added."""
    a = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[2]) + scores
    a = a if seen is None else np.where(seen[None], a, -np.inf)
    return np.einsum("hij,jhd->ihd", softmax(a), v)


def turned(x, positions):
    """x [n, H, d] in pairs of channels i and i + d / 2, each turned by position 10^(-8 i / d)."""
    half = x.shape[2] // 2
    angle = np.outer(positions, 10_000.0 ** (-np.arange(half) / max(half, 1)))[:, None]
    z = (x[..., :half] + 1j * x[..., half : 2 * half]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag, x[..., 2 * half :]], axis=2)


def elu_plus_one(a):
    return np.where(a > 0, a + 1, np.exp(np.minimum(a, 0)))


def infini_transformer(W, x, *, heads, length, update="delta", **_):
    ys, M, z = [], None, None
    for part in segments_of(x, length):
        q, k, v = (heads_of(W.linear(name, part), heads) for name in ("W_q", "W_k", "W_v"))
        places = np.arange(len(part))
        A = attention(turned(q, places), turned(k, places), v, np.tri(len(part)) > 0)
        phi_q, phi_k = elu_plus_one(q), elu_plus_one(k)

        def recalled(phi, M=M, z=z):
            return np.einsum("thk,hkv->thv", phi, M) / np.einsum("thk,hk->th", phi, z)[..., None]

        if M is not None:
            gate = sigmoid(W["beta"])[None, :, None]
            A = gate * recalled(phi_q) + (1 - gate) * A
            v = v - recalled(phi_k) if update == "delta" else v
        M = (0 if M is None else M) + outer(phi_k, v).sum(0)
        z = (0 if z is None else z) + phi_k.sum(0)
        ys.append(W.linear("W_o", flat(A)))
    return np.concatenate(ys)


def transformer(W, x, *, depth, heads, seen):
    for n in range(depth):
        B = W.under(f"blocks.{n}")
        z, places = B.rms("norm", x, 1e-6), np.arange(len(x))
        q, k, v = (heads_of(B.linear(name, z), heads) for name in ("W_q", "W_k", "W_v"))
        x = x + B.linear("W_o", flat(attention(turned(q, places), turned(k, places), v, seen)))
        z = B.rms("feed_norm", x, 1e-6)
        x = x + B.linear("feed.W_3", silu(B.linear("feed.W_1", z)) * B.linear("feed.W_2", z))
    return W.rms("norm", x, 1e-6)


def rmt(W, x, *, heads, length, memory, depth, **_):
    m, ys = W["m_0"], []
    for part in segments_of(x, length):
        H = np.concatenate([m, part, m])
        seen = np.tri(len(H)) > 0
        H = transformer(W.under("transformer"), H, depth=depth, heads=heads, seen=seen)
        ys.append(H[memory : memory + len(part)])
        m = H[memory + len(part) :]
    return np.concatenate(ys)


CASES = [
    ("infini_transformer", infini_transformer, dict(heads=2, length=3, update="delta")),
    ("infini_transformer", infini_transformer, dict(heads=1, length=2, update="linear")),
    ("rmt", rmt, dict(heads=2, length=3, memory=2, depth=2)),
]
