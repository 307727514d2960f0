"""LFM2 and LFM3: gated short convolutions and a few attention blocks, some with experts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from seqjax.hf.config import LARGEST, START, UNREAD, Config
from seqjax.hf.decoder import Branch, Description
from seqjax.hf.parts import (
    ATTENTION,
    GatedShortConv,
    Part,
    attention,
    block,
    describe,
    expert_names,
    experts,
    feed,
)

CONV = {"in_proj": "W_in", "conv": "conv", "out_proj": "W_out"}
NAMED = {
    "q_proj": "W_q",
    "k_proj": "W_k",
    "v_proj": "W_v",
    "out_proj": "W_o",
    "q_layernorm": "q_norm",
    "k_layernorm": "k_norm",
}
ORIGIN = "block_dim block_norm_eps conv_dim conv_dim_out num_heads"
INITIAL = "block_mlp_init_scale block_out_init_scale block_use_xavier_init conv_use_xavier_init"
KINDS = {"conv": True, "full_attention": False}
FEED = {"w1": "W_1", "w3": "W_2", "w2": "W_3"}
EXPERTS = {"gate": "W_r", "expert_bias": "choice_bias", **expert_names("w1", "w3", "w2")}
ROPE = {  # of LFM3
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {
        "rope_type": "proportional",
        "rope_theta": 1_000_000.0,
        "partial_rotary_factor": 0.5,
    },
}


def width(config: Config) -> int:
    """Of the feed-forward layers: two thirds of what the config gives, up to a multiple."""
    field = "block_ff_dim" if config.fields.get("block_ff_dim") else "intermediate_size"
    config.ignore("block_ff_dim is read", "intermediate_size")
    inner = config.size(field, 12288)
    if not config("block_auto_adjust_ff_dim", True):
        config.ignore("the width is not adjusted", "block_ffn_dim_multiplier block_multiple_of")
        return inner
    factor = config("block_ffn_dim_multiplier", 1.0)
    multiple = config.size("block_multiple_of", 256)
    return -(-int(factor * int(2 * inner / 3)) // multiple) * multiple


def short(config: Config, width: int) -> Part:
    mix = partial(
        GatedShortConv,
        config.size("hidden_size"),
        conv=config.size("conv_L_cache", width),
        bias=config("conv_bias", False),
    )
    return mix, CONV, "conv"


def second(config: Config, kinds: list[bool], feeds: Callable[[int], Part]) -> Description:
    """The second generation: which blocks are convolutions, and what follows the mixer."""
    eps = config("norm_eps", 1e-5)
    mix, positions = short(config, 3), config.rope(base=config("theta", 1_000_000.0))
    config.only("theta", "it must equal rope_theta", positions.get("base"))
    some = attention(config, bias=False, qk_norm="head", norm_eps=eps, **positions)
    attend, branches = (some, NAMED, "self_attn"), []
    for i, conv in enumerate(kinds):
        norms = "operator_norm", "ffn_norm"
        branches += block(f"model.layers.{i}", norms, mix if conv else attend, feeds(i))
    tied = config("tie_embedding", True)
    if config.fields.get("tie_embedding") is not None:
        config.only("tie_word_embeddings", "it must equal tie_embedding", tied)
    return describe(config, branches, eps=eps, last="model.embedding_norm", tied=tied)


def lfm2(config: Config) -> Description:
    """LFM2 (LiquidAI/LFM2-350M to -2.6B), arXiv:2511.23404: short convolutions, few attentions.

        x <- x + mix(rms(x))                 mix = W_out (C * conv(B * u)), [B, C, u] = W_in x,
                                             or attention with norms of queries and keys
        x <- x + W_3 (silu(W_1 n) * W_2 n)   n = rms(x)

    The width of the feed-forward layers follows from block_ff_dim and its factors, or without
    block_auto_adjust_ff_dim is that number.
    """
    config.ignore(START, INITIAL)
    config.ignore(UNREAD, ORIGIN)  # of the library that the weights were made with
    config.only("block_use_swiglu", "the feed-forward layers are gated", True)
    config.only("use_pos_enc", "attention has positions", True)
    depth, mlp = config.depth(), (feed(config, width(config)), FEED, "feed_forward")

    def words():
        attends = config("full_attn_idxs", list(range(depth)))
        return ["full_attention" if i in attends else "conv" for i in range(depth)]

    kinds = config.each("layer_types", depth, KINDS, words, "full_attn_idxs")
    return second(config, kinds, lambda i: mlp)


def lfm2_moe(config: Config) -> Description:
    """LFM2 with experts (LiquidAI/LFM2-8B-A1B), arXiv:2511.23404.

        x <- x + mix(rms(x)), x <- x + experts(rms(x))

    As LFM2, with the exact width of the feed-forward layers; from block num_dense_layers on there
    are experts: the best by sigmoid, whose choice may have a bias, weighed by sigmoids over their
    sum.
    """
    some = experts(
        config,
        config.size("moe_intermediate_size", 1792),
        experts=config.size("num_experts", 32),
        top=config.size("num_experts_per_tok", 4),
        scores="sigmoid",
        choice_bias=config("use_expert_bias", True),
        renormalise=config("norm_topk_prob", True),
        floor=1e-6,
        scale=config("routed_scaling_factor", 1.0),
    )
    dense, first = config.size("num_dense_layers", 2, least=0), feed(config)
    kinds = config.each("layer_types", config.depth(), KINDS, lambda: config("layer_types"))
    return second(
        config,
        kinds,
        lambda i: (first, FEED, "feed_forward") if i < dense else (some, EXPERTS, "feed_forward"),
    )


def lfm3(config: Config) -> Description:
    """LFM3 (LiquidAI/LFM3-1.7B), as transformers 5.24 has it.

        x <- x + rms(mix(rms(x)))                 the outer norms only with use_sandwich_norm
        x <- x + rms(W_3 (silu(W_1 n) * W_2 n))   n = rms(x)

    mix is a gated short convolution, attention over all of the past, or over a window of it; both
    with norms of queries and keys, and each head times sigmoid(w x). Positions of either kind are
    its own: in full attention half of the pairs of a head turn, the slower half does not.
    """
    eps, depth = config("norm_eps", 1e-5), config.depth()
    near = config.size("sliding_window", 256, most=LARGEST)
    gate = config("use_attention_gate", True)
    names = {**ATTENTION, **({"gate_proj": "W_gate"} if gate else {})}
    if config.fields.get("rope_parameters") is None:
        config.fields["rope_parameters"] = ROPE

    def attend(kind: str, window: int) -> Part:
        rope = config.rope(base=1_000_000.0, of=kind)
        options = dict(qk_norm="head", norm_eps=eps, head_gate=gate, window=window)
        size = config.size("head_dim", 128)
        return attention(config, head_size=size, **options, **rope), names, "self_attn"

    def words():
        kinds = {2: "full_attention", 0: "sliding_attention"}
        return [kinds.get(i % 4, "conv") if i else "conv" for i in range(depth)]

    every = {kind: kind for kind in ("conv", "full_attention", "sliding_attention")}
    kinds, layers = config.each("layer_types", depth, every, words), {"conv": short(config, 7)}
    windows = {"full_attention": config.context, "sliding_attention": min(near, config.context)}
    absent = " ".join(set(windows) - set(kinds))
    config.inside("rope_parameters").ignore("no block is of this kind", absent)
    layers |= {kind: attend(kind, window) for kind, window in windows.items() if kind in kinds}
    mlp, sandwich, branches = feed(config), config("use_sandwich_norm", True), []
    for i, kind in enumerate(kinds):
        at = f"model.layers.{i}"
        for name, (layer, tensors, below) in (
            ("operator", layers[kind]),
            ("ffn", (mlp, FEED, "feed_forward")),
        ):
            post = f"{at}.post_{name}_norm" if sandwich else None
            branches.append(
                Branch(layer, tensors, f"{at}.{below}", norm=f"{at}.{name}_norm", post=post)
            )
    return describe(config, branches, eps=eps, last="model.embedding_norm", tied=True)
