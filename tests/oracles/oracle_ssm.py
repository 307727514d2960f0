"""Oracles of MEGA, S4 and what is made of it, and Hyena; see `test_blocks`."""

import numpy as np
from oracle_parts import convolved, erf, gelu
from oracle_tools import sigmoid, silu, softmax

# ---- MEGA 2209.10655 -----------------------------------------------------------------------------


def moving_average(W, x, damping):
    """Sec. 3.1: a channel in ndim dimensions; o is divided by sqrt(ndim), as released."""
    alpha, delta = sigmoid(W["alpha"]), sigmoid(W["delta"])
    keep = (1 - alpha) * delta if damping == "product" else 1 - alpha * delta
    h, o = np.zeros(alpha.shape), []
    for x_t in x:
        h = alpha * W["beta"] * x_t[:, None] + keep * h
        o.append((W["eta"] * h).sum(1) / h.shape[1] ** 0.5)
    return np.stack(o)


def relative_bias(W, kind, distance):
    """One number for each distance: a table, or a . b with a turned by the distance."""
    if kind == "toeplitz":
        return W["weight"][distance]
    a, b = (z[: len(z) // 2] + 1j * z[len(z) // 2 :] for z in (W["a"], W["b"]))
    angle = np.outer(distance, 1e4 ** (-np.arange(len(a)) / len(a)))
    return (np.exp(1j * angle) * a * b.conj()).real.sum(1)


def mega(
    W, x, *, length, chunked=False, weights="softmax", bias="toeplitz", prenorm=False,
    norm="layer", expansion=2.0, damping="difference", **_,
):  # fmt: skip
    """Sec. 3.2, and the feed-forward network after it; the order of the norms as released."""

    def normed(name, z):  # a weight of "scale" is one number
        return W.layer_norm(name, z, 1e-5) if norm == "layer" else W.rms(name, z, 1e-5)

    n = normed("norms.0", x) if prenorm else x
    moved = moving_average(W.under("ema.forward"), n, damping) + W["ema.omega"] * n
    moved = silu(moved)
    z, v = silu(W.affine("W_z", moved)), silu(W.affine("W_v", n))
    q, k = (z * kappa + mu for kappa, mu in zip(W["views.kappa"], W["views.mu"]))
    o = np.zeros(v.shape)
    for i in range(len(x)):
        seen = np.arange(i // length * length if chunked else max(0, i + 1 - length), i + 1)
        b = relative_bias(W.under("head.bias"), bias, i - seen)
        if weights == "softmax":
            w = softmax(k[seen] @ q[i] / q.shape[1] ** 0.5 + b)
        else:
            w = k[seen] @ q[i] / len(seen) + b
            mu, sigma = 0.5**0.5, (4 * np.pi) ** -0.5
            laplace = (1 + erf((w - mu) / sigma / 2**0.5)) / 2
            w = laplace if weights == "laplace" else np.maximum(w, 0) ** 2
        o[i] = w @ v[seen]
    gamma, phi = silu(W.affine("W_gamma", moved)), sigmoid(W.affine("W_phi", moved))
    H = silu(W.affine("W_h", moved) + W.linear("U_h", gamma * o))
    y = phi * H + (1 - phi) * x
    y = y if prenorm else normed("norms.0", y)
    if not expansion:
        return y
    n = normed("norms.1", y) if prenorm else y
    y = y + W.affine("W_2", silu(W.affine("W_1", n)))
    return y if prenorm else normed("norms.1", y)


# ---- S4 2111.00396, SaShiMi 2202.09729, Liquid-S4 2209.12951 -------------------------------------


def s4_systems(W):
    """Per channel Abar, Bbar, C over all N states, conjugates included (eq. 3, bilinear)."""

    def both(z):  # [2, ..., n] to [..., N]
        return np.concatenate([z[0] + 1j * z[1], z[0] - 1j * z[1]], axis=-1)

    Lambda = both(np.stack([-np.exp(W["log_A_re"]), W["A_im"]]))
    B, C, P = (both(W[name]) for name in "BCP")
    for h, dt in enumerate(np.exp(W["log_dt"])):
        A, one = np.diag(Lambda[h]) - P[:, h].T @ P[:, h].conj(), np.eye(Lambda.shape[1])
        left = np.linalg.inv(one - dt / 2 * A)
        yield left @ (one + dt / 2 * A), left @ (dt * B[h]), C[h]


def s4(W, x, *, kernel="pb", degree=1, mix=True, **_):
    """C x_k + D u_k and the block's GLU; of a degree above 1, Liquid-S4's products (sec. 3.2)."""
    y = []
    for u, (A, B, C), D in zip(x.T, s4_systems(W), W["D"]):
        powers = [np.linalg.matrix_power(A, t) for t in range(len(u))]
        total = D * u
        for n in range(1, degree + 1):  # n inputs in a row, through (B 1^T)^(n-1) B
            product = [np.prod(u[t + 1 - n : t + 1]) if t + 1 >= n else 0.0 for t in range(len(u))]
            written = np.linalg.matrix_power(np.outer(B, np.ones(len(B))), n - 1) @ B
            K = np.array([(C @ power @ written).real for power in powers])
            K = K if n == 1 or kernel == "kb" else K[:1]
            total = total + np.convolve(product, K)[: len(u)]
        y.append(total)
    y = np.stack(y, axis=1)
    if not mix:
        return y
    value, gate = np.split(W.affine("W_out", gelu(y)), 2, axis=1)
    return value * sigmoid(gate)


def level(W, x, pool, depth, ff):
    if pool:
        below = W.affine("down", x.reshape(-1, pool[0] * x.shape[1]))
        above = W.affine("up", level(W.under("inner"), below, pool[1:], depth, ff))
        late = np.concatenate([np.zeros((1, above.shape[1])), above[:-1]])  # for causality
        x = x + late.reshape(x.shape)
    z = x
    for i in range(depth):
        z = z + s4(W.under(f"s4s.{i}"), W.layer_norm(f"norms.{i}", z, 1e-5))
        if ff:
            feed, n = W.under(f"feeds.{i}"), W.layer_norm(f"feed_norms.{i}", z, 1e-5)
            z = z + feed.affine("W_2", gelu(feed.affine("W_1", n)))
    return x + z


def sashimi(W, x, *, pool, depth, ff=2, **_):
    """Fig. 2; a token that is not complete changes nothing."""
    padded = np.concatenate([x, np.zeros((-len(x) % np.prod(pool), x.shape[1]))])
    return W.layer_norm("norm", level(W.under("net"), padded, pool, depth, ff)[: len(x)], 1e-5)


# ---- Hyena 2302.10866 ----------------------------------------------------------------------------


def hyena(W, x, filters):
    """Def. 3.1: filters [T, features], in the order in which they are applied."""
    u = convolved(W.under("conv"), W.affine("W_in", x))
    *gates, v = np.split(u, len(filters) + 2, axis=1)
    for f, bias, gate in zip(filters, W["bias"], gates[:0:-1]):
        w = gate * v
        v = np.stack([(f[: t + 1][::-1] * w[: t + 1]).sum(0) for t in range(len(x))]) + bias * w
    return W.affine("W_out", gates[0] * v)


def implicit_filter(W, depth=2):
    """Sec. 3.3: a network of the position with sines in it, in windows that fall to 1/100."""
    z, t = W["z"], np.linspace(0, 1, len(W["z"]))
    for i in range(depth + 1):
        z = np.sin(W["freq"] * W.affine(f"inner.{i}", z))
    f = W.linear("last", z)
    return f * np.exp(-np.outer(t, np.linspace(np.log(100) / 1.5, np.log(100) / 0.3, f.shape[1])))


def laughing_hyena(W, x, **_):
    """2310.18780: the filters are Re sum_n C_n lambda_n^t."""
    log_lambda, C = -np.exp(W["rate"]) + 1j * W["phase"], W["C"][0] + 1j * W["C"][1]
    modes = C[:, None] * np.exp(log_lambda[:, None] * np.arange(len(x))[:, None, None])
    return hyena(W, x, modes.sum(-1).real)
