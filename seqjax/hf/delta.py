"""Gated delta rules beside attention: OLMo hybrid, and what Qwen shares with it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from seqjax.hf.config import START, UNREAD, Config
from seqjax.hf.decoder import Branch, Description
from seqjax.hf.parts import (
    ATTENTION,
    FEED,
    KINDS,
    attention,
    block,
    describe,
    feed,
)
from seqjax.hf.tensors import Joined
from seqjax.layers.fast_weights.gated_deltanet import GatedDeltaNet


def interleaved(groups: int, *sizes: int) -> tuple[int, ...]:
    """The order that takes [a_1 b_1 .. a_2 b_2 ..] to [a_1 a_2 .. b_1 b_2 ..]; sizes: of a, b .."""
    places = np.arange(groups * sum(sizes)).reshape(groups, sum(sizes))
    parts = np.split(places, np.cumsum(sizes)[:-1], axis=1)
    return tuple(np.concatenate([part.reshape(-1) for part in parts]).tolist())


def delta(config: Config, eps: float, **options):
    return partial(
        GatedDeltaNet,
        config.size("hidden_size"),
        heads=config.size("linear_num_value_heads"),
        key_heads=config.size("linear_num_key_heads"),
        key_size=config.size("linear_key_head_dim"),
        value_size=config.size("linear_value_head_dim"),
        conv=config.size("linear_conv_kernel_dim", 4),
        norm_eps=eps,
        **options,
    )


def linear(config: Config, depth: int, kinds: Mapping[str, bool] = KINDS) -> list[bool]:
    """Which blocks have the recurrence: all but every fourth, unless the config lists them."""
    interval = "full_attention_interval"

    def words():
        every = config.size(interval, 4)
        return ["linear_attention" if (i + 1) % every else "full_attention" for i in range(depth)]

    return config.each("layer_types", depth, kinds, words, interval)


def olmo_hybrid(config: Config) -> Description:
    """OLMo hybrid (allenai/Olmo-Hybrid-7B); gated delta rule: arXiv:2412.06464.

        x <- x + gated_deltanet(rms(x)), x <- x + glu(rms(x))   norms before, three blocks of four
        x <- x + rms(attention(x)), x <- x + rms(glu(x))        norms after, the fourth

    Eigenvalues of the transition lie in [-1, 1] with linear_allow_neg_eigval. Read in both layouts
    in which the three convolutions have been saved.
    """
    config.ignore(START, "linear_a_log_max linear_a_log_min linear_dt_init_floor")
    config.ignore(START, "linear_dt_max linear_dt_min")
    config.ignore(UNREAD, "fla_hybrid_attention_indices")
    config.only("hidden_act", "the activation around the recurrence", "silu")
    config.only("linear_use_gate", "the output of the recurrence is gated", True)
    signed = config("linear_allow_neg_eigval", True)
    mix = delta(config, 1e-5, eigenvalues="[-1,1]" if signed else "[0,1]")
    keys = config.size("linear_num_key_heads") * config.size("linear_key_head_dim")
    values = config.size("linear_num_value_heads") * config.size("linear_value_head_dim")
    sizes = cuts = keys, keys, values
    if config.layout:  # transformers 5.24 has one convolution, and cuts it in equal parts to save
        third = -(-sum(sizes) // 3)
        cuts = third, third, sum(sizes) - 2 * third
    mixed = {
        ("q_proj", "k_proj", "v_proj"): Joined("W_qkv", sizes),
        ("q_conv1d", "k_conv1d", "v_conv1d"): Joined("conv", cuts),
        "g_proj": "W_g",
        "a_proj": "W_alpha",
        "b_proj": "W_beta",
        "A_log": "A_log",
        "dt_bias": "dt_bias",
        "o_norm": "norm",
        "o_proj": "W_o",
    }
    if config.fields.get("rope_parameters", {}) is None and "rope_theta" not in config.fields:
        raise config.wrong(
            "rope_parameters",
            "the reference documents it as no positions and computes rotary ones; give it as "
            '{"rope_theta": null} for none, or with a base',
        )
    eps = config("rms_norm_eps", 1e-6)
    attend = attention(config, qk_norm="all", norm_eps=eps, **config.rope())
    mlp, branches = feed(config), []
    for i, recurrent in enumerate(linear(config, config.depth())):
        at = f"model.layers.{i}"
        if recurrent:
            norms = "attention_layer_norm", "feedforward_layer_norm"
            branches += block(at, norms, (mix, mixed, "linear_attn"), (mlp, FEED, "mlp"))
        else:
            branches += [
                Branch(attend, ATTENTION, f"{at}.self_attn", post=f"{at}.feedforward_layer_norm"),
                Branch(mlp, FEED, f"{at}.mlp", post=f"{at}.post_feedforward_layernorm"),
            ]
    return describe(config, branches, eps=eps, layouts=2)
