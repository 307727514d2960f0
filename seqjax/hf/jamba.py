"""Jamba: Mamba with norms inside, attention without positions, experts in every other block."""

from __future__ import annotations

from functools import partial

from seqjax.hf.config import RUNNING, UNREAD, Config
from seqjax.hf.decoder import Description
from seqjax.hf.mamba import KERNELS, MAMBA, rank
from seqjax.hf.parts import (
    ATTENTION,
    FEED,
    MIXERS,
    attention,
    block,
    describe,
    expert_names,
    experts,
    feed,
)
from seqjax.layers.ssm.mamba import Mamba

NORMS = {"dt_layernorm": "norms.0", "b_layernorm": "norms.1", "c_layernorm": "norms.2"}
MIXER = {**MAMBA, **NORMS}
EXPERTS = {"router": "W_r", **expert_names("gate_proj", "up_proj", "down_proj")}


def jamba(config: Config) -> Description:
    """Jamba (ai21labs/Jamba-v0.1, AI21-Jamba-1.5-Mini, -Large), arXiv:2403.19887.

        x <- x + mix(rms(x))    mix = mamba, or attention in one block of eight
        x <- x + feed(rms(x))   feed = glu, or experts in every other block

    The time step, B and C of Mamba pass RMSNorms with weights; attention has no positions; the
    weights of the experts are their probabilities among all, not renormalised.
    """
    features, eps = config.size("hidden_size"), config("rms_norm_eps", 1e-6)
    config.ignore(RUNNING, f"{KERNELS} calc_logits_for_entire_prompt")
    config.ignore(UNREAD, "n_ctx")
    config.only("mamba_inner_layernorms", "norms on the time step, B and C", True)
    config.only("sliding_window", "attention sees a window of the past", None)
    mix = partial(
        Mamba,
        features,
        state=config.size("mamba_d_state", 16),
        conv=config.size("mamba_d_conv", 4),
        inner=int(config("mamba_expand", 2) * features),
        dt_rank=rank(config, "mamba_dt_rank"),
        norms="weighted",
        norm_eps=eps,
        bias=config("mamba_proj_bias", False),
        conv_bias=config("mamba_conv_bias", True),
    )
    config.only("hidden_act", "the activation around the recurrence", "silu")
    attend = attention(config, rotary_fraction=0.0)
    mlp, count = feed(config), config.size("num_experts", 16)
    some = experts(
        config,
        config.size("intermediate_size"),
        experts=count,
        top=config.size("num_experts_per_tok", 2),
        renormalise=False,
    )
    depth = config.depth()

    def words():
        period, offset = config.size("attn_layer_period", 8), config("attn_layer_offset", 4)
        return ["attention" if i % period == offset else "mamba" for i in range(depth)]

    kinds = config.each(
        "layers_block_type", depth, MIXERS, words, "attn_layer_period attn_layer_offset"
    )
    every, first = config.size("expert_layer_period", 2), config("expert_layer_offset", 1)
    branches = []
    for i, recurrent in enumerate(kinds):
        routed = count > 1 and i % every == first
        branches += block(
            f"model.layers.{i}",
            ("input_layernorm", "pre_ff_layernorm"),
            (mix, MIXER, "mamba") if recurrent else (attend, ATTENTION, "self_attn"),
            (some, EXPERTS, "feed_forward") if routed else (mlp, FEED, "feed_forward"),
        )
    return describe(config, branches, eps=eps, last="model.final_layernorm")
