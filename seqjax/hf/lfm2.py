"""LFM2: gated short convolutions and a few attention blocks."""

from __future__ import annotations

from functools import partial

from seqjax.hf.config import START, UNREAD, Config
from seqjax.hf.decoder import Description
from seqjax.hf.parts import GatedShortConv, attention, block, describe, feed

CONV = {"in_proj": "W_in", "conv": "conv", "out_proj": "W_out"}
ATTENTION = {
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


def lfm2(config: Config) -> Description:
    """LFM2 (LiquidAI/LFM2-350M to -2.6B), arXiv:2511.23404: short convolutions, few attentions.

        x <- x + mix(rms(x))                 mix = W_out (C * conv(B * u)), [B, C, u] = W_in x,
                                             or attention with norms of queries and keys
        x <- x + W_3 (silu(W_1 n) * W_2 n)   n = rms(x)

    The width of the feed-forward layers follows from block_ff_dim and its factors unless they say
    it is exact.
    """
    features, eps = config.size("hidden_size"), config("norm_eps", 1e-5)
    config.ignore(START, INITIAL)
    config.ignore(UNREAD, ORIGIN)  # of the library that the weights were made with
    config.only("block_use_swiglu", "the feed-forward layers are gated", True)
    config.only("use_pos_enc", "attention has positions", True)
    mix = partial(
        GatedShortConv,
        features,
        conv=config.size("conv_L_cache", 3),
        bias=config("conv_bias", False),
    )
    positions = config.rope(base=config("theta", 1_000_000.0))
    config.only("theta", "it must equal rope_theta", positions.get("base"))
    attend = attention(
        config,
        bias=False,
        qk_norm="head",
        norm_eps=eps,
        **positions,
    )
    depth, mlp, branches = config.depth(), feed(config, width(config)), []

    def words():
        attends = config("full_attn_idxs", list(range(depth)))
        return ["full_attention" if i in attends else "conv" for i in range(depth)]

    for i, conv in enumerate(config.each("layer_types", depth, KINDS, words, "full_attn_idxs")):
        branches += block(
            f"model.layers.{i}",
            ("operator_norm", "ffn_norm"),
            (mix, CONV, "conv") if conv else (attend, ATTENTION, "self_attn"),
            (mlp, FEED, "feed_forward"),
        )
    tied = config("tie_embedding", True)
    if config.fields.get("tie_embedding") is not None:
        config.only("tie_word_embeddings", "it must equal tie_embedding", tied)
    return describe(config, branches, eps=eps, last="model.embedding_norm", tied=tied)
