"""Blocks against their papers: each once more in NumPy, step by step, from its own weights.

As in `test_equations`; these are what stands around an op: projections, gates, norms, residuals,
attention beside a recurrence, mixtures of experts.
"""

import jax
import numpy as np
import pytest
from oracle_parts import (
    attention,
    by_block,
    convolved,
    experts,
    gelu,
    gelu_tanh,
    glu,
    mamba,
    turned,
)
from oracle_ssm import hyena, implicit_filter, laughing_hyena, mega, s4, sashimi
from oracle_tools import (
    Weights,
    causal_conv,
    heads_of,
    layer_of,
    normal,
    numbers,
    sigmoid,
    silu,
    softmax,
    unit,
)

T = 12  # tokens of two and of three steps, chunks of three and of four

# ---- xLSTM 2405.04517 ----------------------------------------------------------------------------


def norm(W, name, z):
    """Of layers without a bias."""
    return W.rms(name, z - z.mean(-1, keepdims=True), 1e-5)


def mlstm_block(W, x, heads, eps=1e-6):
    """Fig. 11, eq. 19 to 27, with the stabiliser of the released code and its eps."""
    u, z = np.split(W.linear("W_up", norm(W, "norm", x)), 2, axis=1)
    c = silu(convolved(W.under("conv"), u))
    q, k, v = (by_block(W[f"W_{name}.kernel"], w) for name, w in (("q", c), ("k", c), ("v", u)))
    i, f = np.split(W.linear("W_if", np.concatenate([q, k, v], axis=1)), 2, axis=1)
    log_i, log_f = i + W["b_i"], np.log(sigmoid(f + W["b_f"]))
    q, k, v = (heads_of(w, heads) for w in (q, k, v))
    k, y = k / k.shape[2] ** 0.5, np.zeros(v.shape)
    for h in range(heads):
        C, n, m = 0.0, 0.0, 0.0
        for t in range(len(x)):
            last, m = m, max(log_f[t, h] + m, log_i[t, h])
            forget, write = np.exp(log_f[t, h] + last - m), np.exp(log_i[t, h] - m)
            C = forget * C + write * np.outer(v[t, h], k[t, h])
            n = forget * n + write * k[t, h]
            y[t, h] = C @ q[t, h] / (max(abs(n @ q[t, h]), np.exp(-m)) + eps)
    y = norm(W, "head_norm", y).reshape(c.shape) + W["skip"] * c
    return x + W.linear("W_down", y * silu(z))


def slstm_block(W, x, heads):
    """Fig. 10, eq. 8 to 14: exponential input gate, sigmoid forget gate, no stabiliser."""
    n = norm(W, "norm", x)
    past = silu(convolved(W.under("conv"), n))
    pairs = ("i", past), ("f", past), ("z", n), ("o", n)
    gates = [by_block(W[f"cell.W.W_{name}.kernel"], w) for name, w in pairs]
    h, c, weight, y = np.zeros(x.shape[1]), 0.0, 0.0, []
    for t in range(len(x)):
        back = np.einsum("hgoi,hi->gho", W["cell.R"], h.reshape(heads, -1)).reshape(4, -1)
        i, f, z, o = (gate[t] + back[j] + W["cell.b"][j] for j, gate in enumerate(gates))
        c = sigmoid(f) * c + np.exp(i) * np.tanh(z)
        weight = sigmoid(f) * weight + np.exp(i)
        h = sigmoid(o) * c / weight
        y.append(h)
    x = x + norm(W, "head_norm", heads_of(np.stack(y), heads)).reshape(x.shape)
    return x + glu(W.under("feed"), norm(W, "feed_norm", x), gelu)


def xlstm(W, x, *, heads, **_):
    return slstm_block(W.under("layers.1"), mlstm_block(W.under("layers.0"), x, heads), heads)


# ---- stacks: Griffin and Hawk 2402.19427, Jamba 2403.19887, Striped Hyena 2403.17844 -------------


def stack(W, x, mixing, feeds):
    """x += mixing(RMSNorm(x)), x += feed(RMSNorm(x)), block by block."""
    for n, (mix, feed) in enumerate(zip(mixing, feeds)):
        x = x + mix(W.under(f"mixing.{n}"), W.rms(f"norms.{n}", x, 1e-6))
        x = x + feed(W.under(f"feeds.{n}"), W.rms(f"feed_norms.{n}", x, 1e-6))
    return x


def rg_lru(W, x, c=8.0):
    """Eq. 1 to 4."""
    r, i = (sigmoid(by_block(W[f"W_{gate}"], x) + W[f"b_{gate}"]) for gate in "ax")
    a = sigmoid(-W["Lambda"]) ** (c * r)  # our Lambda is minus the paper's
    h, y = 0.0, []
    for t in range(len(x)):
        h = a[t] * h + np.sqrt(1 - a[t] ** 2) * i[t] * x[t]
        y.append(h)
    return np.stack(y)


def recurrent_block(W, x):
    u = rg_lru(W.under("rg_lru"), convolved(W.under("conv"), W.affine("W_x", x)))
    return W.affine("W_out", gelu_tanh(W.affine("W_y", x)) * u)


def griffin(W, x, *, heads, blocks=0, pattern=(), window=None, **_):
    def attend(W, x):
        return attention(W, x, heads, kv_heads=1, out_bias=True, window=window, fraction=0.5)

    def feed(W, x):
        return glu(W, x, gelu_tanh, bias=True)

    pattern = pattern or ("recurrent",) * blocks
    mixing = [recurrent_block if kind == "recurrent" else attend for kind in pattern]
    return stack(W, x, mixing, [feed] * len(mixing))


def jamba(W, x, *, heads, kv_heads, top, **_):
    """A block of Mamba and one of attention without positions, whose feed-forward is a mixture."""

    def mix(W, x):
        return mamba(W, x, norms=True)

    def attend(W, x):
        return attention(W, x, heads, kv_heads=kv_heads)

    def mixture(W, x):
        return experts(W, x, top, score=softmax, renormalise=False)

    return stack(W, x, (mix, attend), (glu, mixture))


def stripedhyena(W, x, *, heads, **_):
    def mix(W, x):
        return hyena(W, x, [implicit_filter(W.under("filter"))])

    def attend(W, x):
        return attention(W, x, heads, fraction=1.0)

    return stack(W, x, (mix, attend), (glu, glu))


def zamba(W, x, *, heads, **_):
    """2405.16712 fig. 2: a block of Mamba, and one that the shared attention speaks to first."""
    first, shared = x, W.under("shared")
    x = x + mamba(W.under("blocks.0"), W.rms("norms.0", x, 1e-5))
    both = shared.rms("norm", np.concatenate([x, first], axis=1), 1e-5)
    scale = (both.shape[1] / heads / 2) ** -0.5
    u = attention(shared.under("attention"), both, heads, scale=scale)
    u = glu(shared.under("feed"), shared.rms("feed_norm", u, 1e-5), gelu)
    u = x + W.linear("blocks.1.W", u)
    return x + mamba(W.under("blocks.1.mamba"), W.rms("blocks.1.norm", u, 1e-5))


# ---- Titans 2501.00663 ---------------------------------------------------------------------------


def recall(M, q):
    """A linear model, or an MLP with one hidden layer."""
    return q @ M[0] if len(M) == 1 else gelu_tanh(q @ M[0]) @ M[1]


def gradient(M, k, v, eps=1e-20):
    """Of |M(k) - v|^2, by a complex step in each number of M."""
    found = [np.zeros(w.shape) for w in M]
    for G, n in zip(found, range(len(M))):
        for place in np.ndindex(G.shape):
            moved = [w.astype(complex) for w in M]
            moved[n][place] += 1j * eps
            G[place] = np.sum((recall(moved, k) - v) ** 2).imag / eps
    return found


def memory(W, x, heads, size, layers):
    """Eq. 12 to 15, gradients at the weights that a chunk of `size` steps began with."""
    qkv = silu(causal_conv(W.linear("W_qkv", x), W["conv.weight"]))
    q, k, v = (heads_of(z, heads) for z in np.split(qkv, 3, axis=1))
    q, k = unit(q), unit(k)
    theta, eta, alpha = np.split(sigmoid(W.linear("gates", x) + W["gate_bias"]), 3, axis=1)
    y = np.zeros(v.shape)
    for h in range(heads):
        M = base = [W[f"slow.W.{n}"][h] for n in range(layers)]
        S = [0.0] * layers
        for t in range(len(x)):
            base = M if t % size == 0 else base
            G = gradient(base, k[t, h], v[t, h])
            S = [eta[t, h] * s - theta[t, h] / size * g for s, g in zip(S, G)]
            M = [(1 - alpha[t, h]) * m + s for m, s in zip(M, S)]
            y[t, h] = recall(M, q[t, h])
    return y.reshape(len(x), -1)


def persistent_attention(W, x, heads, window):
    """Eq. 19: the learned tokens are seen by every step, and have no position."""
    tokens, count = np.concatenate([W["p"], x]), len(W["p"])
    q = heads_of(W.linear("W_q", x), heads)
    k, v = (heads_of(W.linear(f"W_{name}", tokens), heads) for name in "kv")
    y = np.zeros(q.shape)
    for t in range(len(x)):
        seen = np.arange(max(0, t + 1 - window), t + 1)
        for h in range(heads):
            now = turned(q[t, h], t)
            scores = [q[t, h] @ k[j, h] for j in range(count)]
            scores += [now @ turned(k[count + j, h], j) for j in seen]
            values = np.concatenate([v[:count, h], v[count + seen, h]])
            y[t, h] = softmax(np.array(scores) / q.shape[2] ** 0.5) @ values
    return W.linear("W_o", y.reshape(len(x), -1))


def titans(W, x, *, placement, heads, size, hidden=(), window=None, **_):
    def remember(x):
        return memory(W.under("memory"), x, heads, size, 1 + len(hidden))

    def attend(x):
        return persistent_attention(W.under("attention"), x, heads, window)

    if placement == "gate":
        o = W.rms("norm_y", attend(x), 1e-6) * silu(W.rms("norm_M", remember(x), 1e-6))
    else:
        o = remember(x) if placement == "memory" else attend(remember(x))
    return W.linear("W_o", o)


# ---- all of them ---------------------------------------------------------------------------------

CHUNKS = dict(length=3, chunked=True, weights="laplace", bias="rotary", prenorm=True, norm="scale")
RELU = dict(length=4, weights="relu2", damping="product", expansion=0.0, norm="rms")
MIXED = dict(attention_at=1, kv_heads=1, experts=3, top=2, state=3, conv=2, dt_rank=2)
STRIPES = dict(depth=2, attention_every=2, heads=2)
TITANS = dict(heads=2, size=3, conv=2, persistent=2, window=3)
CASES = [
    ("mega", mega, dict(ndim=2, size=2, length=4)),
    ("mega", mega, dict(ndim=3, size=4, inner=3, **CHUNKS)),
    ("mega", mega, dict(ndim=1, size=2, **RELU)),
    ("sashimi", sashimi, dict(depth=1, pool=(2, 3), state=2)),
    ("sashimi", sashimi, dict(depth=1, pool=(5,), state=2, ff=0)),
    ("liquid_s4", s4, dict(state=4, degree=3, kernel="kb")),
    ("liquid_s4", s4, dict(state=4, degree=3, mix=False)),
    ("xlstm", xlstm, dict(pattern=("mlstm", "slstm"), heads=2, conv=3)),
    ("griffin", griffin, dict(pattern=("recurrent", "attention"), width=6, heads=2, window=3)),
    ("hawk", griffin, dict(blocks=2, heads=2)),
    ("jamba", jamba, STRIPES | MIXED),
    ("stripedhyena", stripedhyena, dict(length=T, width=3, **STRIPES)),
    ("laughing_hyena", laughing_hyena, dict(order=3, modes=2)),
    ("zamba", zamba, dict(depth=2, every=2, heads=2, state=3, conv=2)),
    ("titans", titans, dict(placement="gate", hidden=(), **TITANS)),
    ("titans", titans, dict(placement="layer", hidden=(), **TITANS)),
    ("titans", titans, dict(placement="memory", hidden=(3,), **TITANS)),
]


@pytest.mark.share(3)
@pytest.mark.parametrize("name, oracle, options", CASES, ids=[case[0] for case in CASES])
def test_a_block_is_its_equations(name, oracle, options):
    layer = layer_of(name, **options)
    W, x = Weights(numbers(layer)), normal(1, 1, T, layer.features)
    expected = oracle(W, np.asarray(x[0]), **options)
    found = jax.jit(lambda x: layer(x)[0][0])(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert np.std(expected) > 1e-3 and not numbers(layer).keys() - W.read
