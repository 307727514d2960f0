"""What gated layers claim beyond the contract: exact equalities, and equations no golden has."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_layers import build
from oracle_tools import layer_of, normal, numbers, sigmoid, softmax

from seqjax.core.flow import Carry, Flow
from seqjax.core.scan import scan
from seqjax.layers.linear_attention.gated_rnn_attention import attention_weights
from seqjax.layers.linear_attention.gateloop import circle
from seqjax.layers.rwkv.parts import ChannelMixing
from seqjax.nn.base import cast_parameters
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.log_linear_attention import Levels, log_linear_attention
from seqjax.zoo import make

B, T, D = 2, 9, 4


def test_a_gated_rnn_is_linear_attention():
    """2309.01775: with the constructed weights, equal to the last digit or two."""
    W_Q, W_K, W_V = normal(1, 3, D, D)
    weights = attention_weights(W_Q, W_K, W_V)
    rnn = build("gated_rnn_attention", D, weights, hidden=D * (D + 1), width=D * D)
    x = normal(2, B, T, D)
    q, k, v = (jnp.einsum("ij,btj->bti", W, x)[:, :, None] for W in (W_Q, W_K, W_V))
    expected, S = linear_attention(q, k, v)
    y, h = rnn(x)
    np.testing.assert_allclose(y, expected[:, :, 0], atol=1e-12)
    remembered = h[:, : D * D].reshape(B, D, D)  # value times key
    np.testing.assert_allclose(remembered, jnp.swapaxes(S[:, 0], 1, 2), atol=1e-12)


def test_aaren_is_softmax_attention_of_one_query():
    layer, x = layer_of("aaren", heads=2), normal(1, 1, T, D)
    p, x_1 = numbers(layer), np.asarray(x[0])
    q = (p["q_0"] @ p["W_q.kernel"] + p["W_q.bias"]).reshape(2, 2)
    k, v = ((x_1 @ p[f"W_{j}.kernel"] + p[f"W_{j}.bias"]).reshape(T, 2, 2) for j in "kv")
    expected = []
    for t in range(1, T + 1):
        weight = softmax(np.einsum("hk,thk->ht", q, k[:t]) / 2**0.5)
        o = np.einsum("ht,thk->hk", weight, v[:t]).reshape(-1)
        expected.append(o @ p["W_o.kernel"] + p["W_o.bias"])
    np.testing.assert_allclose(layer(x)[0][0], expected, atol=1e-12)


def test_tova_drops_what_is_attended_least():
    """Lists in place of a cache; with room for all it is softmax attention."""
    x = normal(1, 1, T, D)
    for policy, size in (("tova", 3), ("window", 3), ("tova", T)):
        layer = layer_of("tova_msrnn", heads=2, size=size, policy=policy, keep_first=1)
        p = numbers(layer)
        q, k, v = ((np.asarray(x[0]) @ p[f"W_{j}.kernel"]).reshape(T, 2, 2) for j in "qkv")
        held, expected = [], []
        for t in range(T):
            held.append(t)
            weight = softmax(np.einsum("hk,thk->ht", q[t], k[held]) / 2**0.5)
            o = np.einsum("ht,thk->hk", weight, v[held]).reshape(-1)
            expected.append(o @ p["W_o.kernel"])
            if len(held) > size:
                held.pop(weight.mean(0).argmin() if policy == "tova" else 1)
        assert len(held) == size
        y, h = layer(x)
        np.testing.assert_allclose(y[0], expected, atol=1e-12)
        np.testing.assert_allclose(h.K[0], k[held], atol=1e-12)


@pytest.mark.parametrize("recent", [1, 2])
def test_heavy_hitters_stay(recent):
    """Per head: out goes the step that had the least attention, but for the newest `recent`."""
    x, size, H = normal(1, 1, T, D), 3, 2
    layer = layer_of("tova_msrnn", heads=H, size=size, policy="h2o", recent=recent)
    p = numbers(layer)
    q, k, v = ((np.asarray(x[0]) @ p[f"W_{j}.kernel"]).reshape(T, H, -1) for j in "qkv")
    o, held, had = np.zeros(v.shape), [[] for _ in range(H)], np.zeros((H, T))
    for t in range(T):
        for h in range(H):
            held[h].append(t)
            weight = softmax(k[held[h], h] @ q[t, h] / q.shape[2] ** 0.5)
            o[t, h] = weight @ v[held[h], h]
            had[h, held[h]] += weight
            if len(held[h]) > size:
                old = held[h][: size + 1 - recent]
                held[h].remove(old[np.argmin(had[h, old])])
    y, state = layer(x)
    np.testing.assert_allclose(y[0], o.reshape(T, -1) @ p["W_o.kernel"], atol=1e-12)
    for h in range(H):
        np.testing.assert_allclose(state.K[0, :, h], k[held[h], h], atol=1e-12)
        np.testing.assert_allclose(state.had[0, :, h], had[h, held[h]], atol=1e-12)


@pytest.mark.thorough
def test_log_linear_attention_reads_by_level():
    """The sum over steps, with more steps than the levels serve; lambda = 1 is linear attention."""
    q, k, v = normal(1, 3, 11, 1, 2)
    log_a, scales = -jnp.abs(normal(2, 11, 1)), normal(3, 11, 1, 3)
    empty = Levels(jnp.zeros((3, 1, 2, 2)), jnp.int32(0))
    expected = np.zeros((11, 2))
    for t in range(11):
        for j in range(t + 1):
            level = min((t ^ j).bit_length(), 2)
            decay = np.exp(np.sum(log_a[j + 1 : t + 1, 0]))
            expected[t] += scales[t, 0, level] * decay * (q[t, 0] @ k[j, 0]) * np.asarray(v[j, 0])
    for options in (dict(evaluator="sequential"), dict(evaluator="chunked", chunk_size=4)):
        run = partial(log_linear_attention, q, k, v, log_a, state=empty, **options)
        y, h = run(scales)
        np.testing.assert_allclose(y[:, 0], expected, atol=1e-12)
        plain, S = linear_attention(q, k, v, log_a)
        np.testing.assert_allclose(run(jnp.ones_like(scales))[0], plain, atol=1e-12)
        np.testing.assert_allclose(h.S.sum(0), S, atol=1e-12)
        assert h.count == 11


def test_many_angles_keep_their_digits():
    """100 000 angles in float32, of which a plain sum loses two digits more."""
    angle = (1.5 + normal(1, 100_000)).astype(jnp.float32)
    total = jax.jit(lambda a: scan(circle, a, jnp.float32(0), evaluator="associative")[1])(angle)
    exact, plain = np.sum(np.asarray(angle, np.float64)), np.cumsum(np.asarray(angle))[-1]
    off, naive = ((float(s) - exact + np.pi) % (2 * np.pi) - np.pi for s in (total, plain))
    assert abs(off) < 2e-3 < 5e-2 < abs(naive), (off, naive)


def test_channel_mixing_of_version_5_weighs_the_previous_token():
    old, new = (
        cast_parameters(ChannelMixing(D, version, inner=5, rngs=nnx.Rngs(0)), jnp.float64)
        for version in (4, 5)
    )
    old.W_v.kernel[...] = new.W_v.kernel[...] = normal(1, 5, D)
    mu = jax.random.uniform(jax.random.key(2), (2, D))
    old.mu[...], new.mu[...] = mu, 1 - mu
    x, window = normal(3, T, D), normal(4, 1, D)
    y, z = (layer(x, Carry(window, window), Flow())[0] for layer in (old, new))
    np.testing.assert_allclose(y, z, atol=1e-12)


def test_rwkv7_blocks_share_the_first_values():
    """Two blocks, v_first passed on: in pieces the same as whole, and v_first matters."""
    options = dict(heads=2, ranks=(2, 2, 2, 2), block=True, inner=5)
    first, second = layer_of("rwkv7", **options), layer_of("rwkv7", mixes_values=True, **options)

    @jax.jit
    def stack(x, h, scale=1.0):
        h, flow = Carry(h, (first.initial(), second.initial())), Flow(evaluator="naive")
        x, v, h_1 = first.mix(x, h[0], flow)
        x, _, h_2 = second.mix(x, h[1], flow, scale * v)
        return x, (h_1, h_2)

    x, h = normal(1, 8, D), (first.initial(), second.initial())
    whole = stack(x, h)[0]
    start, h = stack(x[:4], h)
    np.testing.assert_allclose(jnp.concatenate([start, stack(x[4:], h)[0]]), whole, atol=1e-12)
    assert float(jnp.max(jnp.abs(stack(x[4:], h, 2.0)[0] - whole[4:]))) > 1e-3


def test_gilr_lstm_is_its_equations():
    layer, x = layer_of("gilr_lstm", hidden=3), normal(1, 1, T, D)
    p, h, c, expected = numbers(layer), np.zeros(3), np.zeros(3), []
    for x_t in np.asarray(x[0]):
        g, i, *gates = np.split(x_t @ p["V.kernel"] + p["V.bias"], 6)
        f, i_t, o, z = np.split(np.concatenate(gates) + h @ p["U.kernel"], 4)
        c = sigmoid(f) * c + sigmoid(i_t) * np.tanh(z)
        h = sigmoid(g) * h + (1 - sigmoid(g)) * np.tanh(i)
        expected.append(sigmoid(o) * c)
    y, state = layer(x)
    np.testing.assert_allclose(y[0], expected, atol=1e-12)
    np.testing.assert_allclose(state.surrogate[0], h, atol=1e-12)


def test_sru_pp_is_its_equations():
    layer, x = layer_of("sru_pp", attention=2, window=4), normal(1, 1, T, D)
    p, x_1 = numbers(layer), np.asarray(x[0])
    Q = x_1 @ p["W_in.kernel"]
    K, V = Q @ p["W_k.kernel"], Q @ p["W_v.kernel"]
    c, expected = np.zeros(D), []
    for t in range(T):
        seen = slice(max(0, t - 3), t + 1)
        u = Q[t] + p["a"] * (softmax(Q[t] @ K[seen].T / 2**0.5) @ V[seen])
        u = (u - u.mean()) / np.sqrt(u.var() + 1e-5)
        u = u * p["attention_norm.weight"] + p["attention_norm.bias"]
        z, f, r = np.split(u @ p["W"], 3)
        f, r = (sigmoid(a + p["cells.v"][j] * c + p["cells.b"][j]) for j, a in enumerate((f, r)))
        c = f * c + (1 - f) * z
        expected.append(r * c + (1 - r) * np.sqrt(1 + 2 * np.exp(-2.0)) * x_1[t])
    np.testing.assert_allclose(layer(x)[0][0], expected, atol=1e-6)


def test_gates_start_as_published():
    chrono = make("chrono_lstm", D, hidden=500, longest=50.0, recurrent_init="identity")
    b_i, b_f = np.split(np.asarray(chrono.W.bias[...]), 4)[:2]
    np.testing.assert_array_equal(b_i, -b_f)
    assert 1 <= np.exp(b_f).min() < 3 and 45 < np.exp(b_f).max() <= 49  # log U[1, 49]
    uniform = sigmoid(
        np.sort(np.asarray(make("ur_lstm", D, hidden=500, recurrent_init="identity").b_f[...]))
    )
    np.testing.assert_allclose(uniform, np.linspace(0, 1, 500), atol=0.08)
    bounds = np.asarray(layer_of("hgru", depth=4).lower_bounds())
    assert (bounds[0] == 0).all() and (np.diff(bounds, axis=0) > 0).all() and (bounds < 1).all()
