"""LFM2: gated short convolutions and a few attention blocks."""

from __future__ import annotations

from functools import partial

from seqjax.hf.config import Config
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
FEED = {"w1": "W_1", "w3": "W_2", "w2": "W_3"}


def width(config: Config) -> int:
    """Of the feed-forward layers: two thirds of what is said, up to a multiple."""
    inner = config("block_ff_dim", config("intermediate_size"))
    config.only("block_use_swiglu", True)
    factor, multiple = config("block_ffn_dim_multiplier", 1.0), config("block_multiple_of", 256)
    if not config("block_auto_adjust_ff_dim", True):
        return inner
    return -(-int(factor * int(2 * inner / 3)) // multiple) * multiple


def lfm2(config: Config) -> Description:
    features, eps = config("hidden_size"), config("norm_eps", 1e-5)
    mix = partial(
        GatedShortConv, features, conv=config("conv_L_cache", 3), bias=config("conv_bias", False)
    )
    attend = attention(config, bias=False, qk_norm="head", norm_eps=eps, **config.rope())
    depth, attends = config("num_hidden_layers"), config("full_attn_idxs", None)
    kinds = config(
        "layer_types",
        ["full_attention" if attends is None or i in attends else "conv" for i in range(depth)],
    )
    mlp = feed(config, width(config))
    branches = []
    for i in range(depth):
        conv = kinds[i] == "conv"
        branches += block(
            f"model.layers.{i}",
            ("operator_norm", "ffn_norm"),
            (mix, CONV, "conv") if conv else (attend, ATTENTION, "self_attn"),
            (mlp, FEED, "feed_forward"),
        )
    return describe(config, branches, eps=eps, last="model.embedding_norm", tied=True)
