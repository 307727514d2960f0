"""Ling 3: Kimi delta attention with whole gates, gated latent attention with positions, experts."""

from __future__ import annotations

from functools import partial

import numpy as np

from seqjax.hf.config import RUNNING, TRAINING, UNREAD, Config
from seqjax.hf.decoder import Description, Names, moved
from seqjax.hf.kimi import LATENT, LATENT_QUERIES, kda
from seqjax.hf.parts import FEED, KINDS, block, describe, expert_names, experts, feed
from seqjax.hf.tensors import Split
from seqjax.layers.attention.latent_attention import LatentAttention

EXPERTS: Names = {
    "gate": "W_r",
    "gate.expert_bias": "choice_bias",
    **expert_names("gate_proj", "up_proj", "down_proj"),
    **moved(FEED, "shared_experts", "shared"),
}


def pairs_apart(groups: int, before: int, size: int) -> tuple[int, ...]:
    """The order that takes the last `size` of each group's channels, x_0 y_0 x_1 y_1 .., to
    x_0 x_1 .. y_0 y_1 ..: pairs that are turned stand half the channels apart in ours."""
    last = before + np.arange(size).reshape(-1, 2).T.reshape(-1)
    one = np.concatenate([np.arange(before), last])
    return tuple((np.arange(groups)[:, None] * (before + size) + one).reshape(-1).tolist())


def delta(config: Config):
    heads = config.size("linear_num_heads", config.size("num_attention_heads"))
    size = config.size("linear_head_dim", config.size("head_dim", 128))
    bound = config("kda_lower_bound", -5.0)
    own: Names = {
        "f_proj": "W_a",
        "g_proj": "W_g",
        "A_log": "A_log",
        "dense": "W_o",
    }
    return kda(
        config,
        heads,
        size,
        own,
        conv=config.size("linear_conv_kernel_dim", config.size("short_conv_kernel_size", 4)),
        full_rank=True,
        lower_bound=bound if config("kda_safe_gate", True) else None,
        norm_eps=config("rms_norm_eps", 1e-6),
    )


def latent(config: Config):
    heads, rank = config.size("num_attention_heads"), config.size("q_lora_rank", None)
    K, R = config.size("qk_nope_head_dim", 128), config.size("qk_rope_head_dim", 64)
    down, turned = config.size("kv_lora_rank", 512), config.rope(base=6e6, size=R)
    layer = partial(
        LatentAttention,
        config.size("hidden_size"),
        heads=heads,
        latent=down,
        key_size=K,
        shared_size=R,
        value_size=config.size("v_head_dim", 128),
        query_latent=rank,
        window=config.context,
        positions="rotary" if turned.pop("rotary_fraction", 1.0) else "none",
        **turned,
        gate=True,
        bias=config("attention_bias", False),
    )
    named = dict(LATENT_QUERIES if rank else LATENT)
    named["dense"] = named.pop("o_proj")
    named["g_proj"] = "W_gate"
    named["q_b_proj" if rank else "q_proj"] = Split("W_q", (), pairs_apart(heads, K, R))
    named["kv_a_proj_with_mqa"] = Split("W_down", (), pairs_apart(1, down, R))
    return layer, named


def bailing_hybrid(config: Config) -> Description:
    """Ling 3 (inclusionAI/Ling-3.0-Flash); KDA: arXiv:2510.26692.

        x <- x + mix(rms(x))   mix = kda in five blocks of six, or latent attention
        x <- x + mlp(rms(x))   mlp = glu in the first blocks, experts + a shared one later

    KDA has whole matrices for decays and gate and log decays bounded below,
    kda_lower_bound sigmoid(exp(A) (W x + b)). Latent attention (2405.04434) has positions, and a
    gate sigmoid(w x) for each head. Experts are chosen within groups (2412.19437). The blocks that
    predict the tokens after the next are kept, not run.
    """
    depth, heads = config.depth(), config.size("num_attention_heads")
    config.ignore(UNREAD, "head_dim partial_rotary_factor qk_head_dim")
    config.ignore(RUNNING, "pretraining_tp")
    config.ignore(TRAINING, "mtp_loss_scaling_factor")
    config.only("hidden_act", "the activation around the recurrence", "silu")
    config.only("num_key_value_heads", "it must equal num_attention_heads", heads)
    inner = config.size("moe_intermediate_size", 768)
    mlp = (feed(config), FEED, "mlp")
    some = experts(
        config,
        inner,
        experts=config.size(config.named("num_experts", "num_local_experts"), 512),
        top=config.size(config.named("num_experts_per_token", "num_experts_per_tok"), 8),
        scores="sigmoid",
        renormalise=config(config.named("moe_renormalize", "norm_topk_prob"), True),
        scale=config("routed_scaling_factor", 2.5),
        choice_bias=True,
        groups=config.size(config.named("num_expert_group", "n_group"), 8),
        top_groups=config.size("topk_group", 4),
        shared=inner * config.size(config.named("num_shared_experts", "n_shared_experts"), 1),
    )
    every, first = "layer_group_size", "first_k_dense_replace"

    def mixes():
        n = config.size(every, 6)
        return ["linear_attention" if (i + 1) % n else "full_attention" for i in range(depth)]

    def feeds():
        dense = config.size(first, 2, least=0)
        return ["sparse" if i >= dense else "dense" for i in range(depth)]

    linear = config.each("layer_types", depth, KINDS, mixes, every)
    routed = config.each("mlp_layer_types", depth, {"sparse": True, "dense": False}, feeds, first)
    recurrent, attend, branches = delta(config), latent(config), []
    for i in range(depth):
        mix, names = recurrent if linear[i] else attend
        branches += block(
            f"model.layers.{i}",
            ("input_layernorm", "post_attention_layernorm"),
            (mix, names, "attention"),
            (some, EXPERTS, "mlp") if routed[i] else mlp,
        )
    after = config.size(config.named("num_nextn_predict_layers", "num_mtp_layers"), 1, least=0)
    return describe(
        config,
        branches,
        eps=config("rms_norm_eps", 1e-6),
        embed="model.word_embeddings",
        context=config.context,
        beside=tuple(f"model.layers.{depth + i}." for i in range(after)),
    )
