"""Oracles of layers over segments; see `test_equations`."""

import numpy as np
from oracle_tools import flat, heads_of, outer, sigmoid, silu, softmax, standard


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


def block(B, x, *, heads, seen):
    """One of `seqjax.nn.transformer`."""
    z, places = B.rms("norm", x, 1e-6), np.arange(len(x))
    q, k, v = (heads_of(B.linear(name, z), heads) for name in ("W_q", "W_k", "W_v"))
    x = x + B.linear("W_o", flat(attention(turned(q, places), turned(k, places), v, seen)))
    z = B.rms("feed_norm", x, 1e-6)
    return x + B.linear("feed.W_3", silu(B.linear("feed.W_1", z)) * B.linear("feed.W_2", z))


def transformer(W, x, *, depth, heads, seen):
    for n in range(depth):
        x = block(W.under(f"blocks.{n}"), x, heads=heads, seen=seen)
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


def dpfp(a, nu):
    r = np.maximum(np.concatenate([a, -a]), 0)
    return np.concatenate([r * np.roll(r, j) for j in range(1, nu + 1)])


def armt(W, x, *, heads, length, depth, size, nu, **_):
    """2407.04841: number by number; what is not known yet is read as zero."""
    A, z = np.zeros((depth, x.shape[1], 2 * size * nu)), np.zeros((depth, 2 * size * nu))
    ys = []
    for part in segments_of(x, length):
        H = np.concatenate([part, W["m"]])
        for n in range(depth):
            L, before, mass = W.under(f"associations.{n}"), A[n].copy(), z[n].copy()

            def known(phi, before=before, mass=mass):
                return before @ phi / (mass @ phi) if mass @ phi > 1e-6 else np.zeros(len(before))

            for j, row in enumerate(H):
                H[j] = row + known(dpfp(L.linear("W_q", row), nu))
            H = block(W.under(f"blocks.{n}"), H, heads=heads, seen=np.tri(len(H)) > 0)
            for m in H[len(part) :]:
                phi = dpfp(L.linear("W_k", m), nu)
                v, beta = L.linear("W_v", m), sigmoid(L.affine("w_beta", m))
                gamma = np.clip(1 - mass @ phi / (phi @ phi), 0, 1)
                A[n] += np.outer(beta * (v - known(phi)), phi)
                z[n] += gamma * phi
        ys.append(W.rms("norm", H, 1e-6)[: len(part)])
    return np.concatenate(ys)


def gate(W, kind, c, h):
    z = W.affine("W_z", h)
    if kind == "fixed":
        g = sigmoid(W["b_g"])
        return c * g + z * (1 - g)
    f, i = sigmoid(W.affine("W_f", h) + 1), sigmoid(W.affine("W_i", h) - 1)
    return c * f + np.tanh(z) * i


def mlp(W, x):
    return W.affine("W_2", np.maximum(W.affine("W_1", x), 0))


def block_recurrent(W, x, *, heads, length, kv_heads=None, form="skip", **options):
    kind, kv_heads = options.get("gate", "fixed"), kv_heads or heads
    c, ys, past = W["c_0"], [], x[:0]
    for part in segments_of(x, length):
        seen_x = np.concatenate([past, part])
        q, p = (heads_of(W.linear(name, part), heads) for name in ("W_q", "W_p"))
        k, v = (
            np.repeat(heads_of(W.linear(name, seen_x), kv_heads), heads // kv_heads, axis=1)
            for name in ("W_k", "W_v")
        )
        j = np.arange(-len(past), len(part))
        i = np.arange(len(part))
        distance = i[:, None] - j[None]
        seen = (distance >= 0) & (distance < length)
        own = attention(turned(q, i), turned(k, j), v, seen)
        z = standard(c, 1e-5) * W["norm.weight"] + W["id"]
        q_c, p_c = (heads_of(W.linear(name, z), heads) for name in ("U_q", "U_p"))
        k_c, v_c = (
            np.repeat(heads_of(W.linear(name, z), kv_heads), heads // kv_heads, axis=1)
            for name in ("U_k", "U_v")
        )
        read = attention(p, k_c, v_c)
        ys.append(W.linear("W_o", np.concatenate([flat(own), flat(read)], axis=1)))
        k, v = k[len(past) :], v[len(past) :]
        a = np.concatenate([flat(attention(q_c, k_c, v_c)), flat(attention(p_c, k, v))], axis=1)
        if form == "single":
            c = gate(W.under("gate_1"), kind, c, mlp(W.under("mlp"), a))
        else:
            c = gate(W.under("gate_1"), kind, c, W.linear("U_o", a))
        if form == "dual":
            z = standard(c, 1e-5) * W["mlp_norm.weight"]
            c = gate(W.under("gate_2"), kind, c, mlp(W.under("mlp"), z))
        past = part
    return np.concatenate(ys)


def sinusoid(n, features):
    """R_n [len(n), features] of distances n: sines, then cosines."""
    w = 10_000.0 ** (-np.arange(0, features, 2) / features)
    return np.concatenate([np.sin(np.outer(n, w)), np.cos(np.outer(n, w))], axis=1)


def dilated(W, u):
    """The last step of u [c, D] after convolutions whose other step is 1, 2, 4 .. before it."""
    reach, n = 1, 0
    while reach < len(u) or n == 0:
        A, B = np.split(W[f"layers.{n}.kernel"], 2)
        u = np.maximum(u, 0) if n else u
        before = [u[t - reach] if t >= reach else np.zeros(u.shape[1]) for t in range(len(u))]
        u = np.array(before) @ A + u @ B + W[f"layers.{n}.bias"]
        reach, n = 2 * reach, n + 1
    return u[-1]


def compressive_transformer(
    W, x, *, heads, length, memory, compressed, ratio, compression="conv", positions="sinusoid",
    **_,
):  # fmt: skip
    D = x.shape[1]
    cm = m = x[:0]
    ys = []
    for part in segments_of(x, length):
        z, before = np.concatenate([cm, m, part]), len(cm) + len(m)
        q, k, v = (
            heads_of(W.linear(name, of), heads)
            for name, of in (("W_q", part), ("W_k", z), ("W_v", z))
        )
        n = before + np.arange(len(part))[:, None] - np.arange(len(z))[None]
        if positions == "table":
            place = np.clip(before + length - 1 - n, 0, None)  # as if the segment were whole
            scores = np.einsum("ihd,ijhd->hij", q, W["p"][place])
        else:
            r = heads_of(W.linear("W_r", sinusoid(n.ravel(), D)), heads).reshape(
                *n.shape, heads, -1
            )
            scores = np.einsum("ihd,ijhd->hij", q + W["v"], r)
            scores = scores + np.einsum("hd,jhd->hj", W["u"], k)[:, None]
        scores = np.where(n >= 0, scores / np.sqrt(q.shape[2]), -np.inf)
        a = flat(attention(q, k, v, scores=scores))
        ys.append(W.affine("W_o", a) if "W_o.bias" in W.values else W.linear("W_o", a))
        steps = np.concatenate([m, part])
        old, m = np.split(steps, [max(0, len(steps) - memory)])
        filled = np.concatenate([np.zeros((-len(old) % ratio, D)), old])
        groups = filled.reshape(len(filled) // ratio, ratio, D)
        if compression == "most_used":
            weights = softmax(np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[2]) + scores)
            used = weights.mean((0, 1))[len(cm) : len(cm) + len(old)]
            new = old[np.sort(np.argsort(-used)[: -(-length // ratio)])]
        elif compression == "conv":
            new = W.affine("f_c", groups.reshape(len(groups), ratio * D))
        elif compression == "dilated":
            new = np.array([dilated(W.under("f_c"), u) for u in groups]).reshape(-1, D)
        else:
            new = groups.mean(1) if compression == "mean" else groups.max(1)
        cm = np.concatenate([cm, new])[-compressed:]
    return np.concatenate(ys)


def tlb(W, x, *, heads, length, slots, depth=1, rounds=1, updates=1, **_):
    def sublayer(W, x, z=None, seen=None):
        q = W.layer_norm("norm_q", x, 1e-6)
        kv = q if z is None else W.layer_norm("norm_k", z, 1e-6)
        q, k, v = (
            heads_of(W.linear(name, z), heads) for name, z in (("W_q", q), ("W_k", kv), ("W_v", kv))
        )
        x = x + W.linear("W_o", flat(attention(q, k, v, seen)))
        return x + gelu_mlp(W.under("feed"), W.layer_norm("norm", x, 1e-6))

    s, ys = np.zeros((slots, x.shape[1])), []
    for part in segments_of(x, length):
        z, s = part + W["p"][: len(part)], s + W["p_s"]
        for n in range(rounds):
            for m in range(depth):
                z = sublayer(W.under(f"own.{n}.{m}"), z, seen=np.tri(len(z)) > 0)
            z = sublayer(W.under(f"reads.{n}"), z, s)
        for n in range(updates):
            s = sublayer(W.under(f"writes.{n}"), s, z)
        ys.append(z)
    return np.concatenate(ys)


def gelu_mlp(W, x):
    a = W.affine("W_1", x)
    gelu = a / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))
    return W.affine("W_2", gelu)


def token_turing_machine(
    W, x, *, tokens, process, memory, mode="TL", unit="transformer", depth=1, heads=4,
    positions=False, **_,
):  # fmt: skip
    d = x.shape[1] // tokens
    M, ys = np.zeros((memory, d)), []

    def mha(W, x, z):
        q, k, v = (
            heads_of(W.affine(name, y), heads) for name, y in (("W_q", x), ("W_k", z), ("W_v", z))
        )
        return W.affine("W_o", flat(attention(q, k, v)))

    def weights(W, V):
        return softmax(gelu_mlp(W.under("mlp"), W.layer_norm("norm", V, 1e-6)).T)

    def chosen(W, V, k):
        if mode == "mean":
            p, parts = len(V), []
            for i in range(k):
                parts.append(V[i * p // k : -(-(i + 1) * p // k)].mean(0))
            return np.stack(parts)
        if mode == "TL-MHA":
            return mha(W.under("attention"), W["tokens"], V)
        return weights(W, V) @ V

    for x_t in x.reshape(len(x), tokens, d):
        V = np.concatenate([M, x_t])
        Y = chosen(W.under("read"), V + W["p_r"] if positions else V, process)
        Y = Y + W["p"] if unit == "transformer" else Y
        for n in range(depth):
            B = W.under(f"blocks.{n}")
            if unit == "mlp":
                Y = gelu_mlp(B.under("mlp"), B.layer_norm("norm", Y, 1e-6))
                continue
            z = B.layer_norm("norms.0", Y, 1e-6)
            if unit == "transformer":
                z = mha(B.under("attention"), z, z)
            else:
                z = gelu_mlp(B.under("mixing"), z.T).T
            Y = Y + z
            Y = Y + gelu_mlp(B.under("mlp"), B.layer_norm("norms.1", Y, 1e-6))
        Y = W.layer_norm("norm", Y, 1e-6)
        ys.append(Y.ravel())
        if mode == "TL-AddErase":
            B = W.under("write")
            w = weights(B.under("select"), M)
            factors = []
            for n in range(2):
                e = gelu_mlp(B.under(f"over_tokens.{n}"), B.layer_norm(f"norms.{n}", Y, 1e-6).T).T
                e = gelu_mlp(B.under(f"over_channels.{n}"), e)
                factors.append([1 - np.outer(w[i], e[i]) for i in range(len(w))])
            M = M * np.prod(factors[0], axis=0) + np.mean(factors[1], axis=0)
        else:
            V = np.concatenate([M, x_t, Y])
            M = chosen(W.under("write"), V + W["p_m"] if positions else V, memory)
    return np.stack(ys)


TTM = [
    dict(tokens=3, process=2, memory=3, units=5, heads=2, positions=True, depth=2),
    dict(tokens=2, process=3, memory=2, mode="TL-MHA", unit="mixer", units=4, heads=3),
    dict(tokens=2, process=2, memory=3, mode="TL-AddErase", unit="mlp", units=4, depth=2),
    dict(tokens=1, process=2, memory=3, mode="mean", units=5, heads=2),
]
CASES = [
    ("armt", armt, dict(heads=2, length=2, memory=3, size=4, nu=3, depth=2)),
    *[("token_turing_machine", token_turing_machine, options) for options in TTM],
    ("tlb", tlb, dict(heads=2, length=3, slots=2)),
    ("tlb", tlb, dict(heads=3, length=2, slots=4, depth=2, rounds=2, updates=2, expansion=1.5)),
    (
        "compressive_transformer",
        compressive_transformer,
        dict(heads=2, length=2, memory=2, compressed=1, ratio=2),
    ),
    (
        "compressive_transformer",
        compressive_transformer,
        dict(heads=2, length=3, memory=1, compressed=2, ratio=2, compression="most_used"),
    ),
    (
        "compressive_transformer",
        compressive_transformer,
        dict(
            heads=1,
            length=1,
            memory=2,
            compressed=3,
            ratio=1,
            compression="max",
            positions="table",
            out_bias=True,
        ),
    ),
    (
        "compressive_transformer",
        compressive_transformer,
        dict(heads=3, length=3, memory=1, compressed=3, ratio=2, compression="mean"),
    ),
    (
        "compressive_transformer",
        compressive_transformer,
        dict(heads=2, length=6, memory=1, compressed=3, ratio=5, compression="dilated"),
    ),
    ("block_recurrent", block_recurrent, dict(heads=2, kv_heads=1, length=3, slots=2)),
    (
        "block_recurrent",
        block_recurrent,
        dict(heads=2, length=2, slots=3, gate="lstm", form="single", expansion=2),
    ),
    ("block_recurrent", block_recurrent, dict(heads=1, length=3, slots=2, form="dual")),
    ("infini_transformer", infini_transformer, dict(heads=2, length=3, update="delta")),
    ("infini_transformer", infini_transformer, dict(heads=1, length=2, update="linear")),
    ("rmt", rmt, dict(heads=2, length=3, memory=2, depth=2)),
]
