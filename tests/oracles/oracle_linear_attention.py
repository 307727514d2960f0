"""Oracles of linear attention and its decays, and of blocks with it; see `test_equations`."""

from functools import partial

import numpy as np
from oracle_parts import gelu, glu
from oracle_tools import (
    T,
    before,
    causal_conv,
    flat,
    heads_of,
    outer,
    read,
    rms,
    sigmoid,
    silu,
    softmax,
    standard,
)

# ---- kernels in place of softmax ----------------------------------------------------------------


def products(q, k):
    return np.einsum("thk,shk->hts", q, k)


def kernel_attention(similarity, W, x, *, heads, eps=1e-6, divide="add", bias=True, **_):
    linear = W.affine if bias else W.linear
    q, k, v = (heads_of(linear(f"W_{n}", x), heads) for n in "qkv")
    weight = np.tril(similarity(W, q, k))
    total = weight.sum(-1, keepdims=True)
    total = {"add": total + eps, "max": np.maximum(total, eps), "abs": np.abs(total)}[divide]
    return linear("W_o", flat(np.einsum("hts,shv->thv", weight / total, v)))


def elu(W, q, k):
    phi = [np.where(a > 0, a + 1, np.exp(np.minimum(a, 0))) for a in (q, k)]
    return products(*phi)


def relu(W, q, k):
    return products(np.maximum(q, 0), np.maximum(k, 0))


def taylor(W, q, k):
    z = products(q, k) / q.shape[-1] ** 0.5
    return 1 + z + z * z / 2


def learned(W, q, k):
    phi = [np.maximum(np.einsum("thk,hmk->thm", a, W["phi.W"]) + W["phi.b"], 0) for a in (q, k)]
    return products(*phi)


def random_features(kind):
    def similarity(W, q, k):
        w, phi = W["phi.W"][0], []
        for x in (q, k):
            x = x * x.shape[-1] ** -0.25
            u, half = x @ w.T, (x * x).sum(-1, keepdims=True) / 2
            if kind == "favor+":
                top = u.max(-1, keepdims=True) if not phi else 0  # of queries: the release's
                phi.append(np.exp(u - half - top) + 1e-4)
            elif kind == "favor+-":
                phi.append(np.exp(np.concatenate([u, -u], -1) - half) / 2**0.5)
            elif kind == "trigonometric":
                phi.append(np.exp(half) * np.concatenate([np.sin(u), np.cos(u)], -1))
            else:
                phi.append((np.maximum(u, 0) + 1e-3) * len(w) ** 0.5)
        return products(*phi) / len(w)

    return similarity


def agreeing_bits(W, q, k):
    A, anchors, mean = W["phi.A"], W["phi.anchors"], W["phi.mean"]
    codes = []
    for x in (q, k):
        distance = ((x[:, :, None] - anchors[None]) ** 2).sum(-1)
        kappa = np.exp(-distance / (2 * W["phi.width"][:, None]))
        codes.append(np.sign(np.einsum("hbm,thm->thb", A, kappa - mean)))
    return (np.einsum("thb,shb->htsb", *codes) == 1).sum(-1)


def cosine(length, positive=relu):
    def similarity(W, q, k):
        t = np.arange(T)
        near = np.cos(np.pi * (t[:, None] - t) / (2 * length))
        return positive(W, q, k) * near

    return similarity


def fox(W, x, *, heads, pro=(), **_):
    q, k, v = (heads_of(W.linear(f"W_{n}", x), heads) for n in "qkv")
    if "shift" in pro:
        alpha = np.split(sigmoid(W.linear("pro.w_kv", x))[:, :, None], 2, axis=1)
        k, v = (a * before(z) + (1 - a) * z for a, z in zip(alpha, (k, v)))
    if "qk_norm" in pro:
        q, k = W.rms("pro.q_norm", q, 1e-6), W.rms("pro.k_norm", k, 1e-6)
    passed = np.cumsum(np.log(sigmoid(W.linear("w_f", x) + W["b_f"])), axis=0).T
    scores = products(q, k) / q.shape[-1] ** 0.5 + passed[:, :, None] - passed[:, None]
    weight = softmax(np.where(np.tri(T) > 0, scores, -np.inf))
    o = np.einsum("hts,shv->thv", weight, v)
    o = W.rms("pro.norm", o, 1e-6) if "output_norm" in pro else o
    gate = sigmoid(W.linear("pro.W_g", x)) if "output_gate" in pro else 1
    return W.linear("W_o", gate * flat(o))


# ---- decays -------------------------------------------------------------------------------------


def decaying(a, q, k, v):
    """S_t = a_t * S_{t-1} + k_t v_t^T, o_t = S_t^T q_t; a [T, H, 1 or K, 1 or V]."""
    S, o = np.zeros((*k.shape[1:], v.shape[-1])), []
    for t in range(T):
        S = a[t] * S + outer(k[t], v[t])
        o.append(read(S, q[t]))
    return np.array(o)


def multiplier(gate, eigenvalues):
    return 2 * gate - 1 if eigenvalues == "[-1,1]" else gate


def gla(
    W, x, *, heads, key_size, kv_heads=None, tau=16.0, eigenvalues="[0,1]", value_gate=False, **_
):
    sizes = {"q": heads, "k": kv_heads or heads, "v": kv_heads or heads}
    q, k, v = (heads_of(W.linear(f"W_{n}", x), H) for n, H in sizes.items())

    def gate(n):
        logits = W.linear(f"W_{n}2", W.linear(f"W_{n}1", x)) + W[f"b_{n}"]
        return heads_of(sigmoid(logits) ** (1 / tau), kv_heads or heads)

    a = multiplier(gate("alpha")[..., None], eigenvalues)
    a = a * gate("beta")[:, :, None] if value_gate else a
    k, v, a = (np.repeat(z, heads // z.shape[1], axis=1) for z in (k, v, a))
    o = decaying(a, q / key_size**0.5, k, v)
    return W.linear("W_o", silu(W.affine("W_r", x)) * flat(W.layer_norm("norm", o, 1e-5)))


def gateloop(W, x, *, heads, transition="polar", norm=False, gate=True, **_):
    q, k, v = (heads_of(W.linear(f"W_{n}", x), heads) for n in "qkv")
    z = W.linear("W_a", x) + W["b_a"]
    first, second = np.split(heads_of(z, 2), 2, axis=1) if transition != "modulus_real" else (z, 0)
    z = first + 1j * second
    a = sigmoid(np.abs(z)) * np.exp(1j * np.angle(z))
    if transition == "polar":
        a = sigmoid(first) * np.exp(1j * second)
    o = flat(decaying(heads_of(np.reshape(a, (T, -1)), heads)[..., None], q, k, v).real)
    o = W.layer_norm("norm", o, 1e-5) if norm else o
    return W.linear("W_o", silu(W.linear("W_g", x)) * o if gate else o)


def hgrn2(W, x, *, expansion, lower_bound=0.0, eigenvalues="[0,1]"):
    H = x.shape[1] // expansion
    f = lower_bound + (1 - lower_bound) * heads_of(sigmoid(W.affine("W_f", x)), H)
    q, v = heads_of(sigmoid(W.affine("W_q", x)), H), heads_of(silu(W.affine("W_v", x)), H)
    o = decaying(multiplier(f[..., None], eigenvalues), q, 1 - f, v)
    return W.affine("W_o", W.layer_norm("norm", flat(o), 1e-5))


def mao_decay(W, x, *, heads, eigenvalues="[0,1]", **_):
    q, k, v = (heads_of(W.linear(f"W_{n}", x), heads) for n in "qkv")
    f, z = (heads_of(sigmoid(W.linear(f"W_{n}", x) + W[f"b_{n}"]), heads) for n in "fz")
    return W.linear("W_o", flat(decaying(multiplier(outer(f, z), eigenvalues), q, k, v)))


def relit(W, x, *, heads, **_):
    def feature(P, name, f):
        one, other = heads_of(f(W.affine(P, x)), heads), heads_of(f(W.affine(name, x)), heads)
        return outer(one, other).reshape(T, heads, -1)

    relu = partial(np.maximum, 0)
    k, q = feature("P_1", "W_k", relu), feature("P_2", "W_q", relu)
    gamma = feature("P_3", "W_gamma", sigmoid)
    v, beta = heads_of(W.affine("W_v", x), heads), heads_of(sigmoid(W.affine("W_beta", x)), heads)
    C = decaying(outer(1 - gamma, 1 - beta), q, gamma * k, beta * v)
    s = decaying((1 - gamma)[..., None], q, gamma * k, np.ones((T, heads, 1)))
    return W.affine("W_o", flat(C / (s + 1e-10)))


def mlstm(W, x, *, heads, key_size=3, forget="sigmoid", input="exp", bias=True, gate_cap=None):
    linear, i_f = W.affine if bias else W.linear, W.linear("w_if", x)
    i, f = i_f[:, :heads] + W["b_i"], i_f[:, heads:] + W["b_f"]
    if gate_cap:
        i, f = gate_cap * np.tanh(i / gate_cap), gate_cap * np.tanh(f / gate_cap)
    i = np.exp(i) if input == "exp" else sigmoid(i)
    f = np.exp(f) if forget == "exp" else sigmoid(f)
    q, k, v = (heads_of(linear(f"W_{n}", x), heads) for n in "qkv")
    a, k = f[:, :, None, None], i[:, :, None] * k / key_size**0.5
    C, n = decaying(a, q, k, v), decaying(a, q, k, np.ones((T, heads, 1)))
    m, exp_m = np.ones(heads), np.ones((T, heads))  # by which the release scales its epsilon
    for t in range(T if input == "exp" else 0):
        m = exp_m[t] = np.maximum(f[t] * m, i[t])
    h = standard(C / (np.maximum(np.abs(n), 1) + 1e-6 * exp_m[:, :, None]), 1e-5)
    o = sigmoid(linear("W_o", x))
    return linear("W_out", o * flat(h * W["norm.weight"]))


def aft(W, x, *, kind, window, **_):
    q, k, v = (W.affine(f"W_{n}", x) for n in "qkv")
    y = np.zeros(v.shape)
    for t in range(T):
        w = np.zeros((t + 1, v.shape[1]))
        for s in range(max(0, t - window + 1), t + 1):
            tap = W["w"][:, t - s] if kind == "conv" else W["U"][t] @ W["V"][s]
            w[s] = np.repeat(tap, v.shape[1] // np.size(tap))
        weight = np.exp(k[: t + 1] + w)
        y[t] = (weight * v[: t + 1]).sum(0) / weight.sum(0)
    return W.affine("W_o", sigmoid(q) * y)


# ---- blocks -------------------------------------------------------------------------------------


def block(W, i, x, mixing, norm, feed):
    x = x + mixing(W.under(f"mixing.{i}"), norm(W, f"norms.{i}", x))
    return x + feed(W.under(f"feeds.{i}"), norm(W, f"feed_norms.{i}", x))


def rms_norm(W, name, x):
    return W.rms(name, x, 1e-6)


def softmax_attention(W, x, heads, first):
    """Over the steps from first(t) to t."""
    q, k, v = (heads_of(W.linear(f"W_{n}", x), heads) for n in "qkv")
    y = np.zeros(v.shape)
    for t in range(T):
        seen = slice(first(t), t + 1)
        weight = softmax(np.einsum("hk,shk->hs", q[t], k[seen]) / q.shape[-1] ** 0.5)
        y[t] = np.einsum("hs,shv->hv", weight, v[seen])
    return W.linear("W_o", flat(y))


def transnormer(W, x, *, heads, window, **_):
    def norm_attention(W, x):
        q, k, v = (heads_of(W.linear(f"W_{n}", x), heads) for n in "qkv")
        o = np.einsum("hts,shv->thv", np.tril(elu(W, q, k)), v)
        return W.linear("W_o", W.rms("norm", flat(o), 1e-6))

    def diagonal(W, x):
        return softmax_attention(W, x, heads, lambda t: t // window * window)

    x = block(W, 0, x, diagonal, rms_norm, glu)
    return block(W, 1, x, norm_attention, rms_norm, glu)


def transnormer_llm(W, x, *, heads, depth=0.0, lrpe=True, slopes="linear", **_):
    h = np.arange(heads)
    linear, alibi = 8 * h / heads * (1 - depth), 2.0 ** (-8 * (h + 1) / heads) * (1 - depth + 1e-5)
    decay = np.exp(-(linear if slopes == "linear" else alibi))[None, :, None, None]

    def gla(W, x):
        q, k = (heads_of(silu(W.linear(f"W_{n}", x)), heads) for n in "qk")
        if lrpe:
            angle = np.arange(T)[:, None, None] * W["theta"]
            q, k = (np.concatenate([a * np.cos(angle), a * np.sin(angle)], -1) for a in (q, k))
        o = decaying(np.repeat(decay, T, 0), q, k, heads_of(W.linear("W_v", x), heads))
        return W.linear("W_o", W.linear("W_u", x) * rms(flat(o), 1e-6))

    return block(W, 0, x, gla, lambda W, name, x: rms(x, 1e-6), partial(glu, f=lambda a: a))


def retnet(W, x, *, features, heads, kv_heads=None, xpos=False, norm="group", gate="swish", **_):
    K, n = features // heads, np.arange(T)
    gamma = 1 - 2.0 ** (-5 - np.arange(heads))
    pair = np.arange(K // 2)
    rate = 10_000.0 ** -(2 * pair / K if xpos else np.linspace(0, 1, K // 2))
    zeta = ((2 * pair / K + 0.4) / 1.4) ** (1 / 512) if xpos else np.ones(K // 2)
    decay = np.repeat(np.outer(gamma, zeta)[None], T, 0)[..., None]
    turn = np.exp(1j * np.outer(n, rate))[:, None]

    def msr(W, x):
        def shared(name):
            z = heads_of(W.linear(name, x), kv_heads or heads)
            return np.repeat(z, heads // z.shape[1], axis=1)

        def turned(z):  # neighbouring channels are a complex number
            return z.reshape(T, heads, K // 2, 2) @ [1, 1j] * turn

        q, k = turned(heads_of(W.linear("W_q", x), heads)), turned(shared("W_k")) / K**0.5
        o = decaying(decay, q.conj(), k, shared("W_v")).real
        o = o / np.sqrt(np.cumsum(gamma ** n[:, None], axis=0))[:, :, None]
        o = W.layer_norm("norm", o, 1e-5) if norm == "group" else rms(o, 1e-5)
        f = {"gelu": gelu, "swish": silu}.get(gate)
        return W.linear("W_o", f(W.linear("W_g", x)) * flat(o) if f else flat(o))

    def feed(W, x):
        return W.affine("layers.2", gelu(W.affine("layers.0", x)))

    return block(W, 0, x, msr, lambda W, name, x: W.layer_norm(name, x, 1e-5), feed)


def based(W, x, *, pattern, heads, window, **_):
    def gated_conv(W, x):
        u = causal_conv(W.affine("W_1", x), W["conv.weight"], W["conv.bias"])
        return W.affine("W_o", silu(u) * W.affine("W_2", x))

    mixing = {
        "conv": gated_conv,
        "linear": partial(kernel_attention, taylor, heads=heads, eps=1e-12, bias=False),
        "window": partial(softmax_attention, heads=heads, first=lambda t: max(0, t - window + 1)),
    }
    for i, name in enumerate(pattern):
        x = block(W, i, x, mixing[name], rms_norm, glu)
    return x


def rwkv5(W, x, *, heads, **_):
    """The block; the mixing alone has a golden."""
    z = W.layer_norm("norms.0", x, 1e-5)
    x_r, x_k, x_v, x_g = (z + (before(z) - z) * mu for mu in W["mu"])
    r, k, v = (
        heads_of(W.linear(f"W_{n}", a), heads) for n, a in (("r", x_r), ("k", x_k), ("v", x_v))
    )
    w = np.exp(-np.exp(W["w"])).reshape(heads, -1)
    S, o = np.zeros((heads, *outer(k, v).shape[2:])), []
    for t in range(T):
        o.append(read(S + outer(W["u"] * k[t], v[t]), r[t]))
        S = w[..., None] * S + outer(k[t], v[t])
    y = flat(W.layer_norm("norm", np.array(o), 64e-5))
    x = x + W.linear("W_o", silu(W.linear("W_g", x_g)) * y)
    M, z = W.under("channel_mixing"), W.layer_norm("norms.1", x, 1e-5)
    r = z + (before(z) - z) * M["mu"][1]
    return x + sigmoid(M.linear("W_r", r)) * channel_mixing(M, z)


def channel_mixing(W, x):
    k = x + (before(x) - x) * W["mu"][0]
    return W.linear("W_v", np.maximum(W.linear("W_k", k), 0) ** 2)


def of(similarity, **options):
    return partial(kernel_attention, similarity, **options)


CASES = [
    ("linear_transformer", of(elu), dict(heads=2, key_size=4)),
    ("linear_transformer", of(learned), dict(heads=2, feature_map=("learned", {"count": 5}))),
    ("performer", of(random_features("favor+")), dict(heads=2, count=3)),
    ("performer", of(random_features("favor+-")), dict(heads=2, feature_map="favor+-")),
    ("performer", of(random_features("relu")), dict(heads=2, feature_map="random_relu")),
    (
        "performer",
        of(random_features("trigonometric"), divide="abs"),
        dict(heads=2, count=3, feature_map="trigonometric"),
    ),
    ("cosformer", of(cosine(9), divide="max"), dict(heads=2, length=9)),
    ("cosformer", of(cosine(9, elu), divide="max"), dict(heads=2, length=9, feature_map="elu+1")),
    ("ecoformer", of(agreeing_bits, divide="max", eps=0.5), dict(heads=2, count=8, anchors=4)),
    ("gla", gla, dict(heads=2, key_size=4, rank=5)),
    ("gla", gla, dict(heads=2, key_size=4, rank=5, tau=0.5, eigenvalues="[-1,1]")),
    ("gla", gla, dict(heads=6, kv_heads=2, key_size=4, value_size=3, rank=5, value_gate=True)),
    ("fox", fox, dict(heads=2, window=9)),
    ("fox", fox, dict(heads=2, window=9, pro=("shift", "qk_norm", "output_norm", "output_gate"))),
    ("fox", fox, dict(heads=2, window=9, pro=("qk_norm", "output_gate"))),
    ("fox", fox, dict(heads=2, window=9, pro=("shift", "output_norm"))),
    ("gateloop", gateloop, dict(heads=2)),
    ("gateloop", gateloop, dict(heads=2, transition="modulus", norm=True)),
    ("gateloop", gateloop, dict(heads=2, transition="modulus_real", gate=False)),
    ("hgrn2", hgrn2, dict(expansion=2)),
    ("hgrn2", hgrn2, dict(expansion=2, lower_bound=0.2, eigenvalues="[-1,1]")),
    ("mao_decay", mao_decay, dict(heads=2, key_size=4)),
    ("mao_decay", mao_decay, dict(heads=2, eigenvalues="[-1,1]")),
    ("relit", relit, dict(heads=2, size=4, eta=3)),
    ("mlstm", mlstm, dict(heads=2)),
    ("mlstm", mlstm, dict(heads=2, key_size=4, forget="exp", bias=False, gate_cap=1.5)),
    ("mlstm", mlstm, dict(heads=2, input="sigmoid")),
    ("aft", aft, dict(kind="conv", window=3, heads=2)),
    ("aft", aft, dict(kind="local", window=3, length=9, rank=2)),
    ("transnormer", transnormer, dict(heads=2, window=3)),
    ("transnormer_llm", transnormer_llm, dict(heads=2)),
    ("transnormer_llm", transnormer_llm, dict(heads=2, depth=0.5, lrpe=False, slopes="alibi")),
    ("retnet", retnet, dict(features=8, heads=2, value_size=3)),
    ("retnet", retnet, dict(features=8, heads=2, xpos=True, norm="rms", gate="gelu")),
    ("retnet", retnet, dict(features=16, heads=4, kv_heads=2, value_size=3, gate="none")),
    (
        "based",
        based,
        dict(pattern=("conv", "linear", "window"), heads=2, key_size=4, window=3, conv=2),
    ),
    ("rwkv5", rwkv5, dict(heads=2, block=True, inner=5)),
]
