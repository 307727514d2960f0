"""Lara 4 Mini: gated delta rules, attention in a window and attention without positions."""

from __future__ import annotations

from seqjax.hf.config import Config
from seqjax.hf.decoder import Description, Names, moved
from seqjax.hf.delta import delta
from seqjax.hf.parts import ATTENTION, FEED, PACKED_EXPERTS, attention, block, describe, experts
from seqjax.hf.tensors import Split

KINDS = ("linear_attention", "sliding_attention", "full_attention")
MIXED: Names = {
    "in_proj": Split("W_qkv", ("W_g", "W_beta", "W_alpha")),
    "conv1d": "conv",
    "A_log": "A_log",
    "dt_bias": "dt_bias",
    "out_norm": "norm",
    "out_proj": "W_o",
}
EXPERTS: Names = {
    "gate": "W_r",
    **PACKED_EXPERTS,
    **moved(FEED, "shared_expert", "shared"),
}


def lara_mini(config: Config) -> Description:
    """Lara 4 Mini (translated/Lara-4-Mini-Base); gated delta rule: arXiv:2412.06464.

        x <- x + mix(rms(x))               mix = gated_deltanet, attention in a window,
                                           gated_deltanet, attention, attention in a window
        x <- x + experts(n) + shared(n)    n = rms(x)

    Attention norms the queries and keys of each head; in a window (sliding_window) it has rotary
    positions, over all steps it has none.
    """
    eps, depth = config("rms_norm_eps", 1e-6), config.depth()
    config.only("hidden_act", "the activation around the recurrence", "silu")
    mix, options = delta(config, eps), dict(qk_norm="head", norm_eps=eps)
    near = min(config.size("sliding_window", 512), config.context)
    attends = {
        "sliding_attention": attention(config, window=near, **options, **config.rope()),
        "full_attention": attention(config, rotary_fraction=0.0, **options),
    }
    some = experts(
        config,
        config.size("moe_intermediate_size", 512),
        experts=config.size("num_experts", 128),
        top=config.size("num_experts_per_tok", 4),
        renormalise=config("norm_topk_prob", True),
        shared=config.size("shared_expert_intermediate_size", 512),
    )

    def period():
        order = [KINDS[k] for k in (0, 1, 0, 2, 1)]
        return [order[i % len(order)] for i in range(depth)]

    branches = []
    for i, kind in enumerate(config.each("layer_types", depth, {k: k for k in KINDS}, period)):
        attend = attends.get(kind)
        branches += block(
            f"model.layers.{i}",
            ("input_layernorm", "post_attention_layernorm"),
            (mix, MIXED, "linear_attn") if attend is None else (attend, ATTENTION, "self_attn"),
            (some, EXPERTS, "mlp"),
        )
    return describe(config, branches, eps=eps, tied=True)
