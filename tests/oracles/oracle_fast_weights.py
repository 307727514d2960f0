"""Oracles of fast weights: delta rules, regression, learning rules; see `test_equations`."""

from functools import partial

import numpy as np
from oracle_linear_attention import channel_mixing
from oracle_slots import turned
from oracle_tools import (
    T,
    before,
    causal_conv,
    flat,
    heads_of,
    outer,
    read,
    sigmoid,
    silu,
    softmax,
    softplus,
    unit,
)


def short(W, x, heads, K, V, key_heads=None, n=1):
    """unit q [T, H, K], unit k [T, n, H, K], v [T, n, H, V]; heads in a row share q and k."""
    G = key_heads or heads
    z = silu(causal_conv(W.linear("W_qkv", x), W["conv.weight"]))
    q, k, v = np.split(z, (G * K, (1 + n) * G * K), axis=1)
    q, k = unit(q.reshape(T, G, K)), unit(k.reshape(T, n, G, K))
    q, k = (np.repeat(a, heads // G, axis=-2) for a in (q, k))
    return q, k, v.reshape(T, n, heads, V)


def step_size(logits, eigenvalues):
    return (2 if eigenvalues == "[-1,1]" else 1) * sigmoid(logits)


def mamba_decay(W, x):
    return np.exp(-np.exp(W["A_log"]) * softplus(W.linear("W_alpha", x) + W["dt_bias"]))


def delta_product(
    W, x, *, heads, key_size, value_size, n_h=1, key_heads=None, gated=True, output_gate=True,
    eigenvalues="[0,1]", **_,
):  # fmt: skip
    q, k, v = short(W, x, heads, key_size, value_size, key_heads, n_h)
    beta = step_size(W.linear("W_beta", x), eigenvalues).reshape(T, n_h, heads)
    alpha = mamba_decay(W, x) if gated else np.ones((T, heads))
    S, o = np.zeros((heads, key_size, value_size)), []
    for t in range(T):
        S = alpha[t][:, None, None] * S
        for j in range(n_h):
            S = S + outer(beta[t, j][:, None] * k[t, j], v[t, j] - read(S, k[t, j]))
        o.append(read(S, q[t]) / key_size**0.5)
    y = flat(W.rms("norm", np.array(o), 1e-6))
    return W.linear("W_o", y * silu(W.linear("W_g", x)) if output_gate else y)


def comba(
    W, x, *, heads, key_size, value_size, key_heads=None, state_feedback=True, d=1.0,
    output_gate=True, **_,
):  # fmt: skip
    given = short(W, x, heads, key_size, value_size, key_heads)
    q, k, v = (a.reshape(T, heads, -1) for a in given)
    beta, alpha = sigmoid(W.linear("W_beta", x)), mamba_decay(W, x)
    p = sigmoid(W["w_b"])[:, None] * k if state_feedback else k
    q = q if d is None else q - W["d"][:, None] * k
    S, o = np.zeros((heads, key_size, value_size)), []
    for t in range(T):
        error = v[t] - read(S, p[t])
        S = alpha[t][:, None, None] * S + outer(beta[t][:, None] * k[t], error)
        o.append(read(S, q[t]) / key_size**0.5)
    y = flat(W.rms("norm", np.array(o), 1e-5))
    return W.linear("W_o", y * sigmoid(W.linear("W_g", x)) if output_gate else y)


def kimi(
    W, x, *, heads, key_size, value_size, key_heads=None, gate_bias=True, eigenvalues="[0,1]",
    apart=False, lower_bound=None, full_rank=False, **_,
):  # fmt: skip
    """Kimi Delta Attention; `apart`: Gated DeltaNet-2, with gates b of erasing and w of writing."""
    q, k, v = short(W, x, heads, key_size, value_size, key_heads)
    k, v = k[:, 0], v[:, 0]
    dt = W.linear("W_a", x) if full_rank else W.linear("W_a.W_2", W.linear("W_a.W_1", x))
    dt = heads_of(dt + W["dt_bias"], heads)
    A = np.exp(W["A_log"])[:, None]
    alpha = np.exp(lower_bound * sigmoid(A * dt) if lower_bound else -A * softplus(dt))
    b = heads_of(step_size(W.linear("W_b" if apart else "W_beta", x), eigenvalues), heads)
    w = heads_of(sigmoid(W.linear("W_w", x)), heads) if apart else b
    S, o = np.zeros((heads, key_size, value_size)), []
    for t in range(T):
        S = alpha[t][:, :, None] * S
        S = S - outer(k[t], read(S, b[t] * k[t])) + outer(k[t], w[t] * v[t])
        o.append(read(S, q[t]) / key_size**0.5)
    if full_rank:
        gate = W.linear("W_g", x)
    else:
        gate = (W.affine if gate_bias else W.linear)("W_g.W_2", W.linear("W_g.W_1", x))
    return W.linear("W_o", flat(W.rms("norm", np.array(o), 1e-5)) * sigmoid(gate))


def mesa_net(W, x, *, heads, key_size, value_size, floor=0.25, output_gate=False, **_):
    qk = silu(causal_conv(W.linear("W_qk", x), W["conv.weight"]))
    q, k = (unit(heads_of(a, heads)) for a in np.split(qk, 2, axis=1))
    v = heads_of(W.linear("W_v", x), heads)
    gamma, beta = sigmoid(W.affine("W_gamma", x)), sigmoid(W.affine("W_beta", x))
    Lambda = softplus(W["lam"]) + floor
    o = np.zeros(v.shape)
    for h in range(heads):
        G, H = np.zeros((value_size, key_size)), np.zeros((key_size, key_size))
        for t in range(T):
            G = gamma[t, h] * G + beta[t, h] * np.outer(v[t, h], k[t, h])
            H = gamma[t, h] * H + beta[t, h] * np.outer(k[t, h], k[t, h])
            o[t, h] = G @ np.linalg.inv(H + np.diag(Lambda[h])) @ q[t, h]
    gate = silu(W.linear("W_g", x)) if output_gate else 1
    return W.linear("W_o", gate * flat(W.rms("norm", o, 1e-5)))


def rwkv7(W, x, *, heads, **_):
    """The block; the mixing alone has a golden."""
    z, C = W.layer_norm("norms.0", x, 1e-5), x.shape[1]
    x_r, x_w, x_k, x_v, x_a, x_g = (z + (before(z) - z) * mu for mu in W["mu"])
    r, k, v = (W.linear(f"W_{n}", a) for n, a in (("r", x_r), ("k", x_k), ("v", x_v)))
    w = np.exp(-np.exp(-0.5) * sigmoid(W["w.bias"] + np.tanh(x_w @ W["w.A"]) @ W["w.B"]))
    a = sigmoid(W["a.bias"] + x_a @ W["a.A"] @ W["a.B"])
    g = sigmoid(x_g @ W["g.A"]) @ W["g.B"]
    kappa = heads_of(k * W["k_k"], heads)
    kappa = kappa / np.linalg.norm(kappa, axis=-1, keepdims=True)
    k = k * (1 + (a - 1) * W["k_a"])
    r, k, v, a, w = (heads_of(b, heads) for b in (r, k, v, a, w))
    S, o = np.zeros((heads, C // heads, C // heads)), []
    for t in range(T):
        S = w[t][:, :, None] * S - outer(kappa[t] * a[t], read(S, kappa[t])) + outer(k[t], v[t])
        o.append(read(S, r[t]))
    bonus = (r * W["r_k"] * k).sum(-1, keepdims=True) * v
    x = x + W.linear("W_o", flat(W.layer_norm("norm", np.array(o), 64e-5) + bonus) * g)
    return x + channel_mixing(W.under("channel_mixing"), W.layer_norm("norms.1", x, 1e-5))


RUNGE_KUTTA = {  # the rows of the tableau, and its weights
    "euler": ([()], [1]),
    "midpoint": ([(), (1 / 2,)], [0, 1]),
    "rk4": ([(), (1 / 2,), (0, 1 / 2), (0, 0, 1)], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
}


def neural_ode_fwp(W, x, *, heads, rule="delta", control="ode", solver="rk4", substeps=1):
    def slow(name, a):
        return W.affine(name, a).reshape(heads, -1)

    def u(a):
        return W.layer_norm("norm", W.affine("W_in", a), 1e-6)

    def field(F, x, dx):
        source = u(dx) if (rule, control) == ("delta", "cde") else u(x)
        k, beta = slow("W_k", source), sigmoid(slow("w_b", source))
        if control == "ode":
            v = np.tanh(slow("W_v", u(x)))
        else:
            v = slow("W_v", x if rule == "delta" else dx)
            v = v if rule == "hebb" else np.tanh(v)
        if rule == "oja":
            return outer(beta * v, softmax(k - np.einsum("hvk,hv->hk", F, v)))
        k = softmax(k)
        error = v - np.einsum("hvk,hk->hv", F, k) if rule == "delta" else v
        return outer(beta * error, k)

    D = W["W_q.bias"].size // heads
    F, y, ds = np.zeros((heads, D, D)), [], 1 / substeps
    for t in range(T):
        if t == 0:
            F = F + field(F, x[0], x[0])
        for i in range(substeps if t else 0):
            rates, (rows, weights) = [], RUNGE_KUTTA[solver]
            for row in rows:
                s = (i + sum(row)) * ds
                at = F + ds * sum(a * rate for a, rate in zip(row, rates))
                rates.append(field(at, x[t - 1] + s * (x[t] - x[t - 1]), x[t] - x[t - 1]))
            F = F + ds * sum(b * rate for b, rate in zip(weights, rates))
        q = softmax(slow("W_q", u(x[t])))
        y.append(W.affine("W_o", np.einsum("hvk,hk->hv", F, q).reshape(-1)))
    return np.array(y)


def iplr(
    W, x, *, heads, key_size, value_size, rates=False, output_gate=False, eigenvalues="[0,1]",
    conv=4, **_,
):  # fmt: skip
    q, k, v = short(W, x, heads, key_size, value_size)
    a = unit(heads_of(W.linear("W_a", x), heads))
    beta = step_size(heads_of(W.linear("W_beta", x), heads), eigenvalues)
    S, o = np.zeros((heads, key_size, value_size)), []
    for t in range(T):
        S = S - outer(beta[t] * a[t], read(S, a[t])) + outer(k[t, 0], v[t, 0])
        o.append(read(S, q[t]) / key_size**0.5)
    y = flat(W.rms("norm", np.array(o), 1e-6))
    return W.linear("W_o", y * silu(W.linear("W_g", x)) if output_gate else y)


def mom(
    W, x, *, heads, key_size, memories, value_size=None, top=2, shared_memory=False,
    one_projection=False, output_gate=True, conv=4, **_,
):  # fmt: skip
    """Each memory is a gated DeltaNet over the steps that chose it, and knows of no others."""
    K, V, o = key_size, value_size or 2 * key_size, 0
    p = softmax(W.linear("W_r", x))
    for m in range(memories + shared_memory):
        best = np.argsort(-p, axis=1)[:, :top]
        chosen = (best == m).any(1) if m < memories else np.ones(T, bool)
        z, row = x[chosen], 0 if one_projection else m
        if not len(z):
            continue
        qkv = np.hstack([W.linear("W_q", z), z @ W["W_k"][row], z @ W["W_v"][row]])
        if conv:
            past = np.concatenate([np.zeros((conv - 1, qkv.shape[1])), qkv])
            taps = W["conv.weight"]
            qkv = np.stack([(taps * past[t : t + conv]).sum(0) for t in range(len(z))])
        q, k, v = np.split(silu(qkv), (heads * K, 2 * heads * K), axis=1)
        q, k, v = unit(heads_of(q, heads)), unit(heads_of(k, heads)), heads_of(v, heads)
        beta = sigmoid(z @ W["W_beta"][row])
        alpha = np.exp(-np.exp(W["A_log"]) * softplus(z @ W["W_a"][row] + W["dt_bias"]))
        S, read_off = np.zeros((heads, K, V)), np.zeros((T, heads, V))
        for t, step in enumerate(np.flatnonzero(chosen)):
            S = alpha[t][:, None, None] * S
            S = S + outer(beta[t][:, None] * k[t], v[t] - read(S, k[t]))
            read_off[step] = read(S, q[t]) / K**0.5
        weight = p[:, m] / np.take_along_axis(p, best, 1).sum(1) if m < memories else np.ones(T)
        o = o + weight[:, None, None] * read_off
    y = flat(W.rms("norm", o, 1e-5))
    return W.linear("W_o", y * silu(W.linear("W_g", x)) if output_gate else y)


def deltaformer(
    W, x, *, heads, window, beta=True, qk_norm=False, rotary_fraction=1.0, bias=False, **_
):
    q, k, v = (heads_of((W.affine if bias else W.linear)(f"W_{n}", x), heads) for n in "qkv")
    if qk_norm:
        q, k = W.rms("q_norm", q, 1e-6), W.rms("k_norm", k, 1e-6)
    if rotary_fraction:
        q, k = turned(q), turned(k)
    share = W.affine("w_beta", x) if beta else np.ones((T, heads))
    u, o = np.array(v), np.zeros(v.shape)
    for t in range(T):
        for h in range(heads):
            first = max(0, t - window + 1)
            score = k[first : t + 1, h] @ q[t, h] / q.shape[-1] ** 0.5
            if t > first:
                u[t, h] -= share[t, h] * softmax(score[:-1]) @ u[first:t, h]
            o[t, h] = softmax(score) @ u[first : t + 1, h]
    return W.linear("W_o", flat(o))


SMALL = dict(heads=2, key_size=3, value_size=5, conv=3)
SHARED = SMALL | dict(key_heads=1)
NEGATIVE = SMALL | dict(eigenvalues="[-1,1]")

CASES = [
    ("deltanet", partial(delta_product, gated=False, output_gate=False), SMALL),
    ("deltanet", partial(delta_product, gated=False), NEGATIVE | dict(output_gate=True)),
    ("gated_deltanet", delta_product, SHARED),
    ("gated_deltanet", delta_product, NEGATIVE),
    ("deltaproduct", partial(delta_product, eigenvalues="[-1,1]"), SHARED | dict(n_h=3)),
    ("deltaproduct", delta_product, SMALL | dict(n_h=2, gated=False, eigenvalues="[0,1]")),
    ("comba", comba, SMALL),
    ("comba", comba, SHARED | dict(d=0.02, output_gate=False)),
    ("comba", comba, SMALL | dict(d=None, state_feedback=False)),
    ("kda", kimi, SHARED),
    ("kda", kimi, NEGATIVE | dict(gate_bias=False)),
    ("kda", kimi, SMALL | dict(conv=1, lower_bound=-3.0, full_rank=True)),
    ("gdn2", partial(kimi, apart=True), SHARED),
    ("gdn2", partial(kimi, apart=True), NEGATIVE),
    ("mesa_net", mesa_net, SMALL),
    ("mesa_net", mesa_net, SMALL | dict(conv=1, output_gate=True)),
    ("rwkv7", rwkv7, dict(heads=2, ranks=(2, 3, 2, 3), block=True, inner=5)),
    ("neural_ode_fwp", neural_ode_fwp, dict(heads=2)),
    ("neural_ode_fwp", neural_ode_fwp, dict(heads=1, rule="hebb", control="cde", solver="euler")),
    (
        "neural_ode_fwp",
        neural_ode_fwp,
        dict(heads=2, rule="oja", control="cde", solver="midpoint", substeps=2),
    ),
    ("neural_ode_fwp", neural_ode_fwp, dict(heads=2, control="cde")),
    ("iplr", iplr, SMALL),
    ("iplr", iplr, NEGATIVE | dict(rates=True, output_gate=True)),
    ("mom", mom, dict(heads=2, key_size=4, memories=3, conv=3)),
    ("mom", mom, dict(heads=3, key_size=4, value_size=5, memories=4, top=1, shared_memory=True)),
    (
        "mom",
        mom,
        dict(heads=2, key_size=4, memories=3, one_projection=True, output_gate=False, conv=0),
    ),
    ("deltaformer", deltaformer, dict(features=8, heads=2, window=3)),
    ("deltaformer", deltaformer, dict(features=8, heads=2, window=9, qk_norm=True, bias=True)),
    (
        "deltaformer",
        deltaformer,
        dict(features=8, heads=4, window=5, beta=False, rotary_fraction=0.0),
    ),
]
