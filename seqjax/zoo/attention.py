"""Softmax attention: over a window of the past, whose keys and values are the state."""

from seqjax.layers.attention.attention import Attention
from seqjax.layers.attention.latent_attention import LatentAttention
from seqjax.layers.attention.local_attention import LocalAttention
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "attention": Entry(
        Attention,
        "Softmax attention: grouped heads, positions (rotary, ALiBi, hard ALiBi, none), qk-norm",
        "1706.03762, 2305.13245, 2104.09864, 2108.12409, 2402.01032",
        state="2 * (window - 1) * kv_heads * K",
        smoke=dict(heads=2, window=3),
        variants={
            "grouped": dict(heads=4, kv_heads=2, window=4, qk_norm="head", rotary_fraction=0.0),
            "capped": dict(
                heads=2,
                head_size=3,
                window=2,
                qk_norm="all",
                softcap=2.0,
                gate=True,
                rates=[0.5],
                gain=1.2,
            ),
            "alibi": dict(heads=3, head_size=2, window=4, positions="alibi"),
            "hard alibi": dict(heads=4, kv_heads=2, window=4, positions="hard_alibi"),
            "biased": dict(
                heads=1, window=9, rotary_fraction=0.5, bias=True, head_gate=True, out_features=3
            ),
        },
    ),
    "local_attention": Entry(
        LocalAttention,
        "Local attention: one key and value for all heads, half of them with positions",
        "1911.02150, 2004.05150, 2402.19427",
        state="2 * (window - 1) * K",
        smoke=dict(heads=2, window=3),
        variants={"unplaced": dict(heads=1, window=4, rotary_fraction=0.0)},
    ),
    "latent_attention": Entry(
        LatentAttention,
        "Multi-head latent attention: the cache is what keys and values are made of",
        "2405.04434, 2510.26692",
        state="(window - 1) * (latent + R)",
        smoke=dict(heads=2, latent=3, key_size=2, shared_size=1, value_size=2, window=3),
        variants={
            "queries": dict(
                heads=1, latent=2, key_size=3, shared_size=2, value_size=2, query_latent=3, window=4
            ),
            "placed": dict(
                heads=2,
                latent=3,
                key_size=1,
                shared_size=2,
                value_size=2,
                positions="rotary",
                gate=True,
                bias=True,
                window=4,
            ),
        },
    ),
}
