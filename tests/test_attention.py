"""Attention and experts against their formulas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.layers.attention.attention import Attention
from seqjax.layers.attention.latent_attention import LatentAttention
from seqjax.nn.activations import relu2
from seqjax.nn.base import cast_parameters
from seqjax.nn.experts import MoE
from seqjax.nn.norms import unit
from seqjax.ops.positions import rotary

T, D = 5, 6


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def softmax_rows(scores):
    past = np.tril(np.ones((T, T), bool))
    return jax.nn.softmax(jnp.where(past, scores, -jnp.inf))


@pytest.mark.thorough
@pytest.mark.parametrize("qk_norm", ["each", *(
    pytest.param(name, marks=pytest.mark.thorough) for name in ("head", "all")
)])  # fmt: skip
def test_grouped_queries_with_everything_on(qk_norm):
    layer = Attention(
        D, out_features=4, heads=4, kv_heads=2, head_size=3, window=T, rotary_fraction=0.7,
        base=100.0, scale=0.9, softcap=2.0, qk_norm=qk_norm, norm_offset=1.0, gate=True, bias=True,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    layer = cast_parameters(layer, jnp.float64)
    weights = normal(2, 4, 3), normal(3, 2, 3)
    if qk_norm == "each":
        layer.q_norm.weight[...], layer.k_norm.weight[...] = weights
    x = normal(1, T, D)
    q, k, v = (W(x).reshape(T, -1, 3) for W in (layer.W_q, layer.W_k, layer.W_v))
    if qk_norm != "all":
        q, k = (np.sqrt(3) * unit(z, 3e-6) for z in (q, k))
        if qk_norm == "each":
            q, k = (z * (1 + w)[None] for z, w in zip((q, k), weights))
    else:
        q, k = (
            (np.sqrt(n) * unit(z.reshape(T, -1), n * 1e-6)).reshape(z.shape)
            for z, n in ((q, 12), (k, 6))
        )
    q, k = (rotary(z, jnp.arange(T), fraction=0.7, base=100.0) for z in (q, k))
    heads = []
    for h in range(4):
        scores = 2 * jnp.tanh(0.9 * q[:, h] @ k[:, h // 2].T / 2)
        heads.append(softmax_rows(scores) @ v[:, h // 2])
    y = jnp.concatenate(heads, axis=1) * jax.nn.sigmoid(layer.W_gate(x))
    np.testing.assert_allclose(layer(x[None])[0][0], layer.W_o(y), atol=1e-12)


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("R, options", [
    (1, {}), (6, dict(positions="rotary", base=50.0, gate=True, bias=True)),
])  # fmt: skip
def test_latent_attention_keeps_what_keys_and_values_are_made_of(R, options):
    layer = LatentAttention(
        D, heads=2, latent=3, key_size=2, shared_size=R, value_size=4, query_latent=5, window=T,
        **options, rngs=nnx.Rngs(0),
    )  # fmt: skip
    layer = cast_parameters(layer, jnp.float64)
    for W in (layer.W_q_down, layer.W_down, layer.W_o):
        if W.bias is not None:
            W.bias[...] = normal(2, *W.bias.shape)
    x = normal(1, T, D)
    q = layer.W_q(layer.q_norm(layer.W_q_down(x))).reshape(T, 2, 2 + R)
    c, r = jnp.split(layer.W_down(x), [3], axis=1)
    kv = layer.W_up(layer.norm(c)).reshape(T, 2, 6)
    gates, heads = jnp.ones((T, 2)), []
    if options:
        turn = partial(rotary, positions=jnp.arange(T), base=50.0)
        q = jnp.concatenate([q[..., :2], turn(q[..., 2:])], axis=2)
        r, gates = turn(r[:, None])[:, 0], jax.nn.sigmoid(layer.W_gate(x))
    for h in range(2):
        k = jnp.concatenate([kv[:, h, :2], r], axis=1)
        weights = softmax_rows(q[:, h] @ k.T / (2 + R) ** 0.5)
        heads.append(gates[:, h, None] * (weights @ kv[:, h, 2:]))
    y, state = layer(x[None])
    np.testing.assert_allclose(y[0], layer.W_o(jnp.concatenate(heads, axis=1)), atol=1e-12)
    assert sum(z[0].size for z in state.items) == (T - 1) * (3 + R), "c and r, not k and v"


def test_pairs_turn_by_their_rates_and_are_longer():
    layer = Attention(
        D, heads=1, head_size=5, window=T, rates=[0.9, 0.0], gain=1.3, head_gate=True,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    layer = cast_parameters(layer, jnp.float64)
    x = normal(1, T, D)
    q, k = (np.asarray(W(x)) for W in (layer.W_q, layer.W_k))
    turn = 1.3 * np.exp(1j * np.arange(T)[:, None] * np.array([0.9, 0.0]))
    q_c, k_c = (turn * (z[:, :2] + 1j * z[:, 2:4]) for z in (q, k))
    scores = (q_c @ k_c.conj().T).real + q[:, 4:] @ k[:, 4:].T
    y = softmax_rows(scores / 5**0.5) @ layer.W_v(x)
    expected = layer.W_o(y * jax.nn.sigmoid(layer.W_gate(x)))
    np.testing.assert_allclose(layer(x[None])[0][0], expected, atol=1e-12)
    with pytest.raises(ValueError, match="rates are of 3 pairs, a head has 5 channels"):
        Attention(D, heads=1, head_size=5, rates=[1.0, 1.0, 1.0], rngs=nnx.Rngs(0))


OPTIONS = {
    "softmax": dict(experts=4, top=2, renormalise=False),
    "one": dict(experts=3, top=1, shared=2, floor=0.3),
    "grouped": dict(experts=6, top=2, scores="sigmoid", choice_bias=True, groups=3, top_groups=2,
                    scale=2.5, shared=2, shared_gate=True),
    "latent": dict(experts=4, top=2, f=relu2, gated=False, latent=3, shared=2, bias=True),
    "always": dict(experts=4, top=2, scores="sigmoid", choice_bias=True, scale=2.5, always=2),
}  # fmt: skip


@pytest.mark.share(2)
@pytest.mark.parametrize("evaluator", ["ragged", "dense"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_token_goes_to_its_best_experts(name, evaluator):
    options = OPTIONS[name]
    moe = MoE(D, 3, evaluator=evaluator, rngs=nnx.Rngs(0), **options)
    if moe.choice_bias is not None:
        moe.choice_bias[...] = jnp.asarray(normal(3, moe.experts), moe.choice_bias.dtype)
    if moe.W_in is not None:
        moe.W_in.bias[...] = jnp.ones(3, jnp.float32)
        moe.W_out.bias[...] = jnp.arange(D, dtype=jnp.float32)
    moe = cast_parameters(moe, jnp.float64)
    out = None if moe.W_out is None else moe.W_out.kernel[...]

    def one(moe, x):
        p = moe.W_r(x[None])[0]
        p = jax.nn.softmax(p) if options.get("scores") != "sigmoid" else jax.nn.sigmoid(p)
        n = options["experts"]
        rank = p[:n] if moe.choice_bias is None else p[:n] + moe.choice_bias[...]
        if options.get("groups"):  # of two experts each, all of them count
            worth = rank.reshape(3, 2).sum(1)
            rank = jnp.where(jnp.repeat(worth > worth.min(), 2), rank, -jnp.inf)
        best = np.argsort(-np.asarray(rank))[: options["top"]]
        best = np.append(best, np.arange(n, len(p)))
        where = [(moe, e) if e < n else (moe.always, e - n) for e in best]
        total = p[best].sum() + options.get("floor", 0.0)
        weight = p[best] / (total if options.get("renormalise", True) else 1)
        y = jnp.zeros(D)
        for w, (own, e) in zip(options.get("scale", 1.0) * weight, where):
            if moe.W_in is None:
                y += w * ((jax.nn.silu(x @ own.W_1[e]) * (x @ own.W_2[e])) @ own.W_3[e])
            else:
                y += w * (jax.nn.relu(moe.W_in(x[None])[0] @ moe.W_1[e]) ** 2 @ moe.W_3[e] @ out)
        y += 0 if moe.W_out is None else moe.W_out.bias[...]
        if moe.shared is not None:
            extra = moe.shared(x[None])[0]
            y += extra if moe.w_shared is None else jax.nn.sigmoid(moe.w_shared(x[None])[0]) * extra
        return y

    x = normal(4, 2, T, D)
    expected = jnp.stack([one(moe, token) for token in x.reshape(-1, D)]).reshape(x.shape)
    np.testing.assert_allclose(moe(x), expected, atol=1e-12)


def test_experts_have_one_gradient():
    moe = cast_parameters(MoE(D, 3, rngs=nnx.Rngs(0), **OPTIONS["grouped"]), jnp.float64)
    x, grads = normal(4, T, D), []
    for moe.evaluator in ("ragged", "dense"):
        graph, params = nnx.split(moe)
        loss = jax.grad(lambda p, graph: jnp.sum(jnp.sin(nnx.merge(graph, p)(x))))
        grads.append(jax.jit(loss, static_argnums=1)(params, graph))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), *grads)


def test_impossible_mixtures_are_refused():
    with pytest.raises(ValueError, match="1 to 2 experts, got top = 3"):
        MoE(D, 3, experts=2, top=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="3 experts cannot be chosen in 1 of 2 groups"):
        MoE(D, 3, experts=4, top=3, groups=2, top_groups=1, rngs=nnx.Rngs(0))
