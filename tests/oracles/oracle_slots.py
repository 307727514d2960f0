"""Oracles of slots, learned squares, running softmaxes and tempered gates; see `test_equations`."""

from functools import partial

import numpy as np
from oracle_linear_attention import kernel_attention, products
from oracle_tools import (
    T,
    causal_conv,
    flat,
    heads_of,
    read,
    rms,
    sigmoid,
    silu,
    softmax,
    standard,
)


def quadratic(shared=False, gamma=True, beta=True, normalise=True):
    def similarity(W, q, k):
        q, k = (standard(z, 1e-5) if normalise else z for z in (q, k))
        row = -1 if shared else 1
        if gamma:
            q, k = q * W["phi.gamma"][0], k * W["phi.gamma"][row]
        if beta:
            q, k = q + W["phi.beta"][0], k + W["phi.beta"][row]
        return products(q, k) ** 2 / q.shape[-1]

    return similarity


def turned(z, steps=T):
    """Channels i and i + K / 2 are a complex number, which is turned by its position."""
    half = z.shape[-1] // 2
    rate = 10_000.0 ** (-np.arange(half) / half)
    number = z[..., :half] + 1j * z[..., half:]
    number = number * np.exp(1j * np.arange(steps)[:, None, None] * rate)
    return np.concatenate([number.real, number.imag], -1)


def abc(
    W, x, *, heads, rotary_fraction=1.0, clamp=(-32, 32), norm="rms", output_gate=True,
    input_gate=False, conv=0, **_,
):  # fmt: skip
    """Each slot is a weighted mean over all steps so far (eq. 5), not a recurrence."""
    parts = [W.linear(f"W_{n}", x) for n in "qkv"]
    if conv:
        ends = np.cumsum([part.shape[1] for part in parts])[:-1]
        parts = np.split(silu(causal_conv(np.hstack(parts), W["conv.weight"])), ends, axis=1)
    q, k, v = (heads_of(silu(part) if input_gate else part, heads) for part in parts)
    if rotary_fraction:
        q, k = turned(q), turned(k)
    s = heads_of(W.linear("W_phi", x), heads)
    alpha = np.exp(s if clamp is None else np.clip(s, *clamp))
    o = np.zeros(v.shape)
    for t in range(T):
        a = alpha[: t + 1] / alpha[: t + 1].sum(0)
        K, V = (np.einsum("thm,thk->hmk", a, z[: t + 1]) for z in (k, v))
        p = softmax(np.einsum("hmk,hk->hm", K, q[t]) / q.shape[-1] ** 0.5)
        o[t] = np.einsum("hm,hmv->hv", p, V)
    if norm is not None:
        o = W.rms("norm", o, 1e-5) if norm == "rms" else rms(o, 1e-5)
    y = flat(o)
    return W.linear("W_o", y * silu(W.linear("W_g", x)) if output_gate else y)


def lightnet(W, x, *, heads, norm="rms", conv=0, conv_bias=False, **_):
    """Row i of S is the mean of all values so far, weighted by exp(k_i)."""
    parts = [W.linear(f"W_{n}", x) for n in "qkv"]
    if conv:
        ends = np.cumsum([part.shape[1] for part in parts])[:-1]
        bias = W["conv.bias"] if conv_bias else 0.0
        parts = np.split(causal_conv(np.hstack(parts), W["conv.weight"], bias), ends, axis=1)
    q, k, v = (heads_of(part, heads) for part in parts)
    o = np.zeros(v.shape)
    for t in range(T):
        a = np.exp(k[: t + 1])
        S = np.einsum("thk,thv->hkv", a / a.sum(0), v[: t + 1])
        o[t] = read(S, silu(q[t])) / q.shape[-1] ** 0.5
    o = W.rms("norm", flat(o), 1e-6) if norm == "rms" else rms(flat(o), 1e-6)
    gate = W.linear("W_g.W_2", W.linear("W_g.W_1", x))
    return W.linear("W_o", o * silu(gate))


def rodimus(W, x, *, conv=4, **_):
    u = W.linear("W_up", x)
    s = silu(causal_conv(u, W["conv.weight"], W["conv.bias"])) if conv else u
    g = np.log1p(np.exp(W.linear("W_g", s) + W["b_g"]))
    tau = sigmoid(W.linear("W_tau", s) + W["b_tau"])
    q, k = W.linear("W_q", s), W.linear("W_k", s)
    k = g**tau * k / np.linalg.norm(k, axis=-1, keepdims=True)
    v = sigmoid(W.affine("W_i.W_2", W.linear("W_i.W_1", u))) * u
    S, o = np.zeros((k.shape[1], v.shape[1])), []
    for t in range(T):
        S = np.exp(-g[t] * tau[t])[:, None] * S + np.outer(k[t], v[t])
        o.append(q[t] @ S / q.shape[1] ** 0.5 + W["d"] * s[t])
    return W.linear("W_down", W.rms("norm", np.array(o) * silu(W.linear("W_gate", x)), 1e-5))


def of(similarity, **options):
    return partial(kernel_attention, similarity, **options)


CASES = [
    (
        "rebased",
        of(quadratic(), eps=1e-5, bias=False),
        dict(heads=2, key_size=4),
    ),
    (
        "rebased",
        of(quadratic(shared=True, normalise=False), eps=1e-5, bias=False),
        dict(heads=2, key_size=4, value_size=5, shared=True, normalise=False),
    ),
    ("abc", abc, dict(heads=2, key_size=4, slots=5, clamp=(-0.3, 0.2))),
    (
        "abc",
        abc,
        dict(
            heads=2,
            key_size=4,
            slots=5,
            rotary_fraction=0.0,
            clamp=None,
            norm=None,
            output_gate=False,
        ),
    ),
    ("abc", abc, dict(heads=2, key_size=4, slots=5, norm="plain", input_gate=True, conv=3)),
    ("lightnet", lightnet, dict(heads=2, key_size=4, rank=5)),
    (
        "lightnet",
        lightnet,
        dict(heads=2, key_size=4, rank=5, norm="plain", conv=3, conv_bias=True),
    ),
    ("rodimus", rodimus, dict(key_size=4, inner=9, rank=5)),
    ("rodimus", rodimus, dict(key_size=4, inner=9, rank=5, conv=0)),
]
