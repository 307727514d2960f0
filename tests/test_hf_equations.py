"""What no stored checkpoint has, against the published modelling code of each architecture: experts
and how tokens are routed to them, and constants that multiply; the whole model, from its tensors.
And where a reset sends the mixers that only released models have.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracle_parts import attend, experts, glu
from oracle_tools import Weights, causal_conv, heads_of, rms, sigmoid, silu, softmax, softplus
from test_hf import ATTENTION, BESIDE, checkpoint, in_float64, tensors

from seqjax.hf import read
from seqjax.hf.minimax import LightningAttention
from seqjax.hf.parts import GatedShortConv, Parallel
from seqjax.layers.attention.attention import Attention
from seqjax.layers.ssm.mamba2 import Mamba2
from seqjax.nn.base import cast_parameters

FEED = dict(gate_proj="W_1", up_proj="W_2", down_proj="W_3")
BY_NUMBER = dict(w1="W_1", w3="W_2", w2="W_3")


def linear(W, name, x):
    return x @ W[f"{name}.weight"].T


def affine(W, name, x):
    return linear(W, name, x) + W[f"{name}.bias"]


def feed(W, x, names=FEED):
    matrices = {f"{ours}.kernel": W[f"{theirs}.weight"].T for theirs, ours in names.items()}
    return glu(Weights(matrices), x)


def mixture(W, x, top, *, router, count, names=FEED, **options):
    """`experts` of matrices that lie one by one in the checkpoint."""
    matrices = {"W_r.kernel": W[f"{router}.weight"].T}
    for theirs, ours in names.items():
        each = [W[f"experts.{e}.{theirs}.weight"].T for e in range(count)]
        matrices[ours] = np.stack(each)
    return experts(Weights(matrices), x, top, **options)


def attention(W, x, scale=None, fraction=0.0):
    q, k, v = (heads_of(linear(W, f"{name}_proj", x), n) for name, n in zip("qkv", (2, 1, 1)))
    return linear(W, "o_proj", attend(q, k, v, scale=scale, fraction=fraction))


def ends(W, tokens, blocks, *, norm="norm", eps=1e-6, scale=1.0, logits=1.0, offset=0.0):
    """The embedding, block by block, a norm, the head."""
    x = scale * W["model.embed_tokens.weight"][tokens]
    for i, block in enumerate(blocks):
        x = block(W.under(f"model.layers.{i}"), x)
    x = rms(x, eps) * (W[f"model.{norm}.weight"] + offset)
    return logits * x @ W["lm_head.weight"].T


# ---- Jamba: weights are probabilities among all experts ------------------------------------------

JAMBA = dict(
    **ATTENTION, model_type="jamba", num_hidden_layers=2, attn_layer_period=1, attn_layer_offset=0,
    expert_layer_period=2, expert_layer_offset=1, num_experts=4, num_experts_per_tok=2,
)  # fmt: skip


def jamba(W, tokens):
    def block(routed):
        def run(W, x):
            x = x + attention(W.under("self_attn"), W.rms("input_layernorm", x, 1e-6))
            n, at = W.rms("pre_ff_layernorm", x, 1e-6), W.under("feed_forward")
            options = dict(router="router", count=4, score=softmax, renormalise=False)
            return x + (mixture(at, n, 2, **options) if routed else feed(at, n))

        return run

    return ends(W, tokens, [block(False), block(True)], norm="final_layernorm")


# ---- Granite 4: softmax of the best logits, a shared expert, constants ---------------------------

GRANITE = dict(
    **ATTENTION, **BESIDE, model_type="granitemoehybrid", num_hidden_layers=1,
    layer_types=["attention"], num_local_experts=4, num_experts_per_tok=2,
    shared_intermediate_size=5, residual_multiplier=0.5, logits_scaling=2.0,
    embedding_multiplier=3.0, attention_multiplier=0.3, position_embedding_type="rope",
)  # fmt: skip


def granite(W, tokens):
    def moe(W, x):
        both, last = W["input_linear.weight"], W["output_linear.weight"]  # [experts, out, in]
        y = np.zeros(x.shape)
        for t, token in enumerate(x):
            logits = token @ W["router.layer.weight"].T
            best = np.argsort(-logits)[:2]
            for weight, e in zip(softmax(logits[best]), best):
                one, two = np.split(both[e] @ token, 2)
                y[t] += weight * last[e] @ (silu(one) * two)
        return y

    def shared(W, x):
        one, two = np.split(linear(W, "input_linear", x), 2, axis=1)
        return linear(W, "output_linear", silu(one) * two)

    def block(W, x):
        n = W.rms("input_layernorm", x, 1e-6)
        x = x + 0.5 * attention(W.under("self_attn"), n, scale=0.3, fraction=1.0)
        n = W.rms("post_attention_layernorm", x, 1e-6)
        return x + 0.5 * (moe(W.under("block_sparse_moe"), n) + shared(W.under("shared_mlp"), n))

    return ends(W, tokens, [block], scale=3.0, logits=1 / 2.0)


# ---- Qwen3-Next: renormalised, a shared expert behind a gate -------------------------------------

QWEN = dict(
    **ATTENTION, model_type="qwen3_next", num_hidden_layers=1, layer_types=["full_attention"],
    head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=3,
    shared_expert_intermediate_size=2, linear_num_key_heads=1, linear_num_value_heads=1,
    linear_key_head_dim=2, linear_value_head_dim=2,
)  # fmt: skip


def qwen3_next(W, tokens):
    def norm(W, name, x):
        return rms(x, 1e-6) * (1 + W[f"{name}.weight"])

    def attended(W, x):
        q, gate = np.split(heads_of(linear(W, "q_proj", x), 2), 2, axis=2)
        k, v = (heads_of(linear(W, f"{name}_proj", x), 1) for name in "kv")
        y = attend(norm(W, "q_norm", q), norm(W, "k_norm", k), v, fraction=0.25)
        return linear(W, "o_proj", y * sigmoid(gate.reshape(len(x), -1)))

    def block(W, x):
        x = x + attended(W.under("self_attn"), norm(W, "input_layernorm", x))
        n, at = norm(W, "post_attention_layernorm", x), W.under("mlp")
        routed = mixture(at, n, 2, router="gate", count=4, score=softmax)
        shared = feed(at.under("shared_expert"), n)
        return x + routed + sigmoid(linear(at, "shared_expert_gate", n)) * shared

    return ends(W, tokens, [block], offset=1.0)


# ---- MiniMax: the normed stream is what is added to, and both are multiplied ---------------------

MINIMAX = dict(
    **ATTENTION, model_type="minimax", num_hidden_layers=1, layer_types=["full_attention"],
    num_local_experts=4, num_experts_per_tok=2, full_attn_alpha_factor=3.5,
    full_attn_beta_factor=0.7, mlp_alpha_factor=1.3, mlp_beta_factor=0.6,
)  # fmt: skip


def minimax(W, tokens):
    def block(W, x):
        n = W.rms("input_layernorm", x, 1e-5)
        x = 3.5 * n + 0.7 * attention(W.under("self_attn"), n, fraction=1.0)
        n, at = W.rms("post_attention_layernorm", x, 1e-5), W.under("block_sparse_moe")
        return 1.3 * n + 0.6 * mixture(
            at, n, 2, router="gate", names=BY_NUMBER, count=4, score=softmax
        )

    return ends(W, tokens, [block], eps=1e-5)


# ---- Kimi Linear: sigmoids, a bias of the choice alone, groups, a factor -------------------------

KIMI = dict(
    model_type="kimi_linear", hidden_size=4, intermediate_size=6, num_attention_heads=2,
    vocab_size=7, num_hidden_layers=1, kv_lora_rank=3, qk_nope_head_dim=2, qk_rope_head_dim=1,
    v_head_dim=2, num_experts=6, num_experts_per_token=2, num_expert_group=3, topk_group=2,
    routed_scaling_factor=2.5, moe_intermediate_size=3, num_shared_experts=2,
    first_k_dense_replace=0, linear_attn_config=dict(
        full_attn_layers=[1], kda_layers=[], head_dim=2, num_heads=2, short_conv_kernel_size=2
    ),
)  # fmt: skip


def kimi_linear(W, tokens):
    def latent(W, x):
        c, r = np.split(linear(W, "kv_a_proj_with_mqa", x), [3], axis=1)
        c = rms(c, 1e-6) * W["kv_a_layernorm.weight"]
        k, v = np.split(heads_of(linear(W, "kv_b_proj", c), 2), [2], axis=2)
        k = np.concatenate([k, np.repeat(r[:, None], 2, axis=1)], axis=2)  # no position: not turned
        return linear(W, "o_proj", attend(heads_of(linear(W, "q_proj", x), 2), k, v))

    def block(W, x):
        x = x + latent(W.under("self_attn"), W.rms("input_layernorm", x, 1e-5))
        n, at = W.rms("post_attention_layernorm", x, 1e-5), W.under("block_sparse_moe")
        routed = mixture(
            at, n, 2, router="gate", count=6, names=BY_NUMBER,
            score=sigmoid, bias=at["gate.e_score_correction_bias"], scale=2.5, groups=3,
            top_groups=2,
        )  # fmt: skip
        return x + routed + feed(at.under("shared_experts"), n)

    return ends(W, tokens, [block], eps=1e-5)


# ---- Falcon-H1: a constant at every matrix -------------------------------------------------------

FALCON = dict(
    **ATTENTION, **BESIDE, model_type="falcon_h1", num_hidden_layers=1, mamba_rms_norm=True,
    mamba_norm_before_gate=False, attention_bias=True, ssm_multipliers=[0.5, 1.5, 2.0, 0.7, 0.9],
    mlp_multipliers=[0.8, 1.2], key_multiplier=0.4, ssm_in_multiplier=1.3, ssm_out_multiplier=0.6,
    attention_in_multiplier=0.9, attention_out_multiplier=1.7, embedding_multiplier=5.0,
    lm_head_multiplier=0.3,
)  # fmt: skip


def mamba2(W, x, constants, *, heads=2, groups=2, N=2):
    """2405.21060; the norm is over each group, after the gate."""
    d = W["out_proj.weight"].shape[1]
    sizes = np.cumsum([d, d, groups * N, groups * N])
    parts = np.split(linear(W, "in_proj", x), sizes, axis=1)
    z, u, B, C, delta = (constant * part for constant, part in zip(constants, parts))
    u = np.concatenate([u, B, C], axis=1)
    u = silu(causal_conv(u, W["conv1d.weight"][:, 0].T, W["conv1d.bias"]))
    u, B, C = np.split(u, sizes[1:3] - d, axis=1)
    u, B, C = heads_of(u, heads), heads_of(B, groups), heads_of(C, groups)
    dt, y = softplus(delta + W["dt_bias"]), np.zeros(u.shape)
    for h in range(heads):
        S, g = 0.0, h * groups // heads
        for t in range(len(x)):
            decay = np.exp(-dt[t, h] * np.exp(W["A_log"][h]))
            S = decay * S + dt[t, h] * np.outer(B[t, g], u[t, h])
            y[t, h] = C[t, g] @ S + W["D"][h] * u[t, h]
    y = heads_of(y.reshape(z.shape) * silu(z), groups)
    return linear(W, "out_proj", rms(y, 1e-5).reshape(z.shape) * W["norm.weight"])


def falcon_h1(W, tokens):
    def attended(W, x):
        q = heads_of(affine(W, "q_proj", x), 2)
        k, v = 0.4 * affine(W, "k_proj", x), affine(W, "v_proj", x)
        return affine(W, "o_proj", attend(q, k[:, None], v[:, None], fraction=1.0))

    def mlp(W, x):
        y = linear(W, "up_proj", x) * silu(0.8 * linear(W, "gate_proj", x))
        return 1.2 * linear(W, "down_proj", y)

    def block(W, x):
        n = W.rms("input_layernorm", x, 1e-5)
        ssm = 0.6 * mamba2(W.under("mamba"), 1.3 * n, FALCON["ssm_multipliers"])
        x = x + ssm + 1.7 * attended(W.under("self_attn"), 0.9 * n)
        return x + mlp(W.under("feed_forward"), W.rms("pre_ff_layernorm", x, 1e-5))

    options = dict(norm="final_layernorm", eps=1e-5, scale=5.0, logits=0.3)
    return ends(W, tokens, [block], **options)


CASES = {
    "jamba": (jamba, JAMBA),
    "granite": (granite, GRANITE),
    "qwen3_next": (qwen3_next, QWEN),
    "minimax": (minimax, MINIMAX),
    "kimi_linear": (kimi_linear, KIMI),
    "falcon_h1": (falcon_h1, FALCON),
}


@pytest.mark.parametrize("equations, config", CASES.values(), ids=CASES)
def test_a_model_is_its_equations(equations, config, tmp_path):
    W = Weights({name: t.astype(np.float64) for name, t in tensors(config).items()})
    tokens = np.array([3, 1, 4, 1, 5, 0, 2])
    expected = equations(W, tokens)
    graph, params = nnx.split(in_float64(read(checkpoint(tmp_path, config), context=16)))
    run = jax.jit(lambda params, tokens: nnx.merge(graph, params)(tokens)[0][0])
    found = run(params, jnp.asarray(tokens)[None])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert np.std(expected) > 1e-2 and not W.values.keys() - W.read


MIXERS = {
    "parallel": partial(
        Parallel,
        (partial(Mamba2, 4, heads=2, state=2, conv=2), partial(Attention, 4, heads=2, window=3)),
        (0.9, 1.1),
        (0.7, 1.3),
    ),
    "gated short conv": partial(GatedShortConv, 4),
    "lightning attention": partial(LightningAttention, 4, heads=2, head_size=2),
}


@pytest.mark.share(1)
@pytest.mark.parametrize("name", MIXERS)
def test_a_reset_goes_to_the_start_that_was_learned(name):
    layer = MIXERS[name](rngs=nnx.Rngs(0))
    layer.learn_initial()
    graph, params, rest = nnx.split(cast_parameters(layer, jnp.float64), nnx.Param, ...)
    moved = jax.tree_util.tree_map_with_path(
        lambda path, p: p + float("h0" in jax.tree_util.keystr(path)), params
    )
    layer = nnx.merge(graph, moved, rest)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 4)))
    y, h = layer(x, resets=jnp.zeros((1, 7), bool).at[0, 3].set(True))
    fresh, end = layer(x[:, 3:])
    same = partial(np.testing.assert_allclose, atol=1e-12)
    jax.tree.map(same, (y[:, 3:], h), (fresh, end))
    zeros = jax.tree.map(jnp.zeros_like, layer.batch_state(1, jnp.float64))
    assert jnp.abs(layer(x[:, 3:], zeros)[0] - fresh).max() > 1e-3
