"""Gated delta rules beside attention: Qwen3-Next and OLMo-hybrid."""

from __future__ import annotations

from functools import partial

import numpy as np

from seqjax.hf.config import Config
from seqjax.hf.decoder import Branch, Description
from seqjax.hf.parts import ATTENTION, FEED, attention, block, describe, expert_names, experts, feed
from seqjax.hf.tensors import Joined, Split
from seqjax.layers.fast_weights.gated_deltanet import GatedDeltaNet

EXPERTS = {
    "gate": "W_r",
    **expert_names("gate_proj", "up_proj", "down_proj"),
    "shared_expert.gate_proj": "shared.W_1",
    "shared_expert.up_proj": "shared.W_2",
    "shared_expert.down_proj": "shared.W_3",
    "shared_expert_gate": "w_shared",
}


def interleaved(groups: int, *sizes: int) -> tuple[int, ...]:
    """The order that takes [a_1 b_1 .. a_2 b_2 ..] to [a_1 a_2 .. b_1 b_2 ..]; sizes: of a, b .."""
    places = np.arange(groups * sum(sizes)).reshape(groups, sum(sizes))
    parts = np.split(places, np.cumsum(sizes)[:-1], axis=1)
    return tuple(np.concatenate([part.reshape(-1) for part in parts]).tolist())


def delta(config: Config, eps: float, **options):
    return partial(
        GatedDeltaNet,
        config("hidden_size"),
        heads=config("linear_num_value_heads"),
        key_heads=config("linear_num_key_heads"),
        key_size=config("linear_key_head_dim"),
        value_size=config("linear_value_head_dim"),
        conv=config("linear_conv_kernel_dim", 4),
        norm_eps=eps,
        **options,
    )


def linear(config: Config, i: int) -> bool:
    """Whether block i has the recurrence: all but every fourth, unless the config says."""
    kinds = config("layer_types", None)
    every = config("full_attention_interval", 4)
    return (i + 1) % every != 0 if kinds is None else kinds[i] == "linear_attention"


def qwen3_next(config: Config) -> Description:
    eps = config("rms_norm_eps", 1e-6)
    config.only("hidden_act", "silu")
    mix = delta(config, eps)
    groups, heads = config("linear_num_key_heads"), config("linear_num_value_heads")
    K, shared = config("linear_key_head_dim"), heads // groups
    V = shared * config("linear_value_head_dim")
    mixed = {
        "in_proj_qkvz": Split("W_qkv", ("W_g",), interleaved(groups, K, K, V, V)),
        "in_proj_ba": Split("W_beta", ("W_alpha",), interleaved(groups, shared, shared)),
        "conv1d": "conv",
        "A_log": "A_log",
        "dt_bias": "dt_bias",
        "norm": "norm",
        "out_proj": "W_o",
    }
    attend = attention(
        config, qk_norm="head", norm_offset=1.0, norm_eps=eps, gate=True, **config.rope(0.25)
    )
    queries = config("num_attention_heads")
    size = config("head_dim", config("hidden_size") // queries)
    attended = {
        **ATTENTION,
        "q_proj": Split("W_q", ("W_gate",), interleaved(queries, size, size)),
    }
    mlp, count = feed(config), config("num_experts", 512)
    some = experts(
        config,
        config("moe_intermediate_size", 512),
        experts=count,
        top=config("num_experts_per_tok", 10),
        renormalise=config("norm_topk_prob", True),
        shared=config("shared_expert_intermediate_size", 512),
        shared_gate=True,
    )
    dense, every = config("mlp_only_layers", []), config("decoder_sparse_step", 1)
    branches = []
    for i in range(config("num_hidden_layers")):
        routed = count > 0 and i not in dense and (i + 1) % every == 0
        branches += block(
            f"model.layers.{i}",
            ("input_layernorm", "post_attention_layernorm"),
            (mix, mixed, "linear_attn") if linear(config, i) else (attend, attended, "self_attn"),
            (some, EXPERTS, "mlp") if routed else (mlp, FEED, "mlp"),
        )
    return describe(config, branches, eps=eps, offset=1.0)


def olmo_hybrid(config: Config) -> Description:
    """The norms stand before the branches of a recurrent block, and after those of attention."""
    config.neutral("linear_a_log_max linear_a_log_min linear_dt_init_floor linear_dt_max")
    config.neutral("linear_dt_min")
    config.only("hidden_act", "silu")
    signed = config("linear_allow_neg_eigval", True)
    mix = delta(config, 1e-5, eigenvalues="[-1,1]" if signed else "[0,1]")
    keys = config("linear_num_key_heads") * config("linear_key_head_dim")
    sizes = (keys, keys, config("linear_num_value_heads") * config("linear_value_head_dim"))
    mixed = {
        ("q_proj", "k_proj", "v_proj"): Joined("W_qkv", sizes),
        ("q_conv1d", "k_conv1d", "v_conv1d"): Joined("conv", sizes),
        "g_proj": "W_g",
        "a_proj": "W_alpha",
        "b_proj": "W_beta",
        "A_log": "A_log",
        "dt_bias": "dt_bias",
        "o_norm": "norm",
        "o_proj": "W_o",
    }
    eps = config("rms_norm_eps", 1e-6)
    attend = attention(config, qk_norm="all", norm_eps=eps, **config.rope())
    mlp, branches = feed(config), []
    for i in range(config("num_hidden_layers")):
        at = f"model.layers.{i}"
        if linear(config, i):
            norms = "attention_layer_norm", "feedforward_layer_norm"
            branches += block(at, norms, (mix, mixed, "linear_attn"), (mlp, FEED, "mlp"))
        else:
            branches += [
                Branch(attend, ATTENTION, f"{at}.self_attn", post=f"{at}.feedforward_layer_norm"),
                Branch(mlp, FEED, f"{at}.mlp", post=f"{at}.post_feedforward_layernorm"),
            ]
    return describe(config, branches, eps=eps)
