"""Kimi Linear: Kimi delta attention, and latent attention without positions; many experts."""

from __future__ import annotations

from functools import partial

from seqjax.hf.config import RUNNING, TRAINING, UNREAD, Config
from seqjax.hf.decoder import Description, Names, moved
from seqjax.hf.parts import FEED, KINDS, block, describe, expert_names, experts, feed
from seqjax.hf.tensors import Joined, Shaped
from seqjax.layers.attention.latent_attention import LatentAttention
from seqjax.layers.fast_weights.kda import KDA

LATENT: Names = {
    "q_proj": "W_q",
    "kv_a_proj_with_mqa": "W_down",
    "kv_a_layernorm": "norm",
    "kv_b_proj": "W_up",
    "o_proj": "W_o",
}
LATENT_QUERIES: Names = {
    "q_a_proj": "W_q_down",
    "q_a_layernorm": "q_norm",
    "q_b_proj": "W_q",
    **{theirs: ours for theirs, ours in LATENT.items() if theirs != "q_proj"},
}
EXPERTS: Names = {
    "gate": "W_r",
    "gate.e_score_correction_bias": "choice_bias",
    **expert_names("w1", "w3", "w2"),
    **moved(FEED, "shared_experts", "shared"),
}


def kinds(config: Config, old: Config, depth: int) -> list[bool]:
    """Which blocks have full attention; the config counts them from 1."""
    old.ignore("layer_types is read", "full_attn_layers kda_layers")

    def words():
        full = old("full_attn_layers")
        others = [i + 1 for i in range(depth) if i + 1 not in full]
        old.only("kda_layers", "the blocks that are not in full_attn_layers", others)
        return ["full_attention" if i + 1 in full else "linear_attention" for i in range(depth)]

    return [not linear for linear in config.each("layer_types", depth, KINDS, words)]


def delta(config: Config, old: Config):
    heads = config.size("linear_num_heads", old.size("num_heads", 32))
    size = config.size("linear_head_dim", old.size("head_dim", 128))
    width = config.size("linear_conv_kernel_dim", old.size("short_conv_kernel_size", 4))
    own: Names = {
        "f_a_proj": "W_a.W_1",
        "f_b_proj": "W_a.W_2",
        "g_a_proj": "W_g.W_1",
        "g_b_proj": "W_g.W_2",
        "A_log": Shaped("A_log", (1, 1, heads, 1)),
        "o_proj": "W_o",
    }
    eps = config("rms_norm_eps", 1e-5)
    return kda(config, heads, size, own, conv=width, gate_bias=False, norm_eps=eps)


def kda(config: Config, heads: int, size: int, own: Names, **options):
    """The layer and its names: `own`, and those that all releases have."""
    keys = (heads * size,) * 3
    names: Names = {
        ("q_proj", "k_proj", "v_proj"): Joined("W_qkv", keys),
        ("q_conv1d", "k_conv1d", "v_conv1d"): Joined("conv", keys),
        "b_proj": "W_beta",
        "dt_bias": "dt_bias",
        "o_norm": "norm",
        **own,
    }
    known = dict(heads=heads, key_size=size, value_size=size)
    return partial(KDA, config.size("hidden_size"), **known, **options), names


def kimi_linear(config: Config) -> Description:
    """Kimi Linear (moonshotai/Kimi-Linear-48B-A3B-Base, -Instruct), arXiv:2510.26692.

        x <- x + mix(rms(x))    mix = kda in three blocks of four, or latent
                                attention without positions
        x <- x + feed(rms(x))   feed = glu in the first blocks, or experts: scores
                                sigmoid, chosen in groups with a bias, and shared

    Read under both names that its plain feed-forward layers have been saved with.
    """
    features, depth = config.size("hidden_size"), config.depth()
    old = config.inside("linear_attn_config")  # of the release; transformers saves linear_* instead
    config.ignore(UNREAD, "head_dim num_key_value_heads qk_head_dim use_grouped_topk")
    config.ignore(RUNNING, "pretraining_tp ep_size")
    config.ignore(TRAINING, "aux_loss_alpha seq_aux")
    config.ignore("there are no positions", "rope_theta rope_parameters")
    config.only("hidden_act", "the activation of the feed-forward layers", "silu")
    config.only("attention_bias", "biases in attention", False)
    config.only("rope_scaling", "rotary positions", None)
    config.only("mla_use_nope", "attention has no positions", True)
    config.only("mla_use_output_gate", "attention is gated", False)
    config.only("dense_ffn_hidden", "it must equal intermediate_size",
                config.size("intermediate_size"))  # fmt: skip
    config.ignore("the activation is another", "activation_situ_beta activation_situ_linear_beta")
    config.only("attn_res_block_size", "attention over the residuals of blocks", 0)
    config.only("moe_router_activation_func", "the scores of the experts", "sigmoid")
    config.only("moe_layer_freq", "every how many blocks there are experts", 1)
    config.only("num_nextn_predict_layers", "blocks that predict the tokens after the next", 0)
    rank = config.size("q_lora_rank", None)
    attend = partial(
        LatentAttention,
        features,
        heads=config.size("num_attention_heads"),
        latent=config.size("kv_lora_rank"),
        key_size=config.size("qk_nope_head_dim"),
        shared_size=config.size("qk_rope_head_dim"),
        value_size=config.size("v_head_dim"),
        query_latent=rank,
        window=config.context,
        norm_eps=1e-6,
    )
    inner = config.size("moe_intermediate_size")
    count = config.size("num_experts", 0, least=0)
    mlp = feed(config)
    some = experts(
        config,
        inner,
        experts=count or 1,
        top=config.size("num_experts_per_token", 8),
        scores="sigmoid",
        renormalise=config("moe_renormalize", True),
        scale=config("routed_scaling_factor"),
        choice_bias=True,
        groups=config.size("num_expert_group", 1),
        top_groups=config.size("topk_group", 1),
        shared=inner * config.size("num_shared_experts", 1),
    )
    # transformers, which adds mlp_layer_types, saves plain ones under this name too
    renamed = config("mlp_layer_types", None) is not None
    plain = "block_sparse_moe" if renamed != bool(config.layout) else "mlp"
    first = "first_k_dense_replace"

    def words():
        dense = config.size(first, 1, least=0)
        return ["sparse" if count and i >= dense else "dense" for i in range(depth)]

    meanings = {"sparse": True, "dense": False}
    routed = config.each("mlp_layer_types", depth, meanings, words, first)
    linear, branches = delta(config, old), []
    for i, full in enumerate(kinds(config, old, depth)):
        branches += block(
            f"model.layers.{i}",
            ("input_layernorm", "post_attention_layernorm"),
            (attend, LATENT_QUERIES if rank else LATENT, "self_attn")
            if full
            else (*linear, "self_attn"),
            (some, EXPERTS, "block_sparse_moe") if routed[i] else (mlp, FEED, plain),
        )
    eps = config("rms_norm_eps", 1e-5)
    return describe(config, branches, eps=eps, context=config.context, layouts=2)
