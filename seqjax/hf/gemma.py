"""RecurrentGemma: the blocks of Griffin."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp

from seqjax.hf.config import LARGEST, START, Config
from seqjax.hf.decoder import Description
from seqjax.hf.parts import ATTENTION, FEED, attention, block, describe
from seqjax.hf.tensors import Shaped
from seqjax.layers.ssm.griffin import RecurrentBlock
from seqjax.nn.linear import GLU


def recurrent_gemma(config: Config) -> Description:
    """RecurrentGemma (google/recurrentgemma-2b, -9b), arXiv:2404.07839; Griffin, arXiv:2402.19427.

        x <- x + mix(rms(x))                 mix = RG-LRU in its gated branch, or attention
        x <- x + W_3 (gelu(W_1 n) * W_2 n)   n = rms(x)
        y  = 30 tanh(W rms(x) / 30)          the logits

    Attention sees a window of the past, attention_window_size; half of every head has positions.
    Weights of norms are stored as w - 1.
    """
    features, heads = config.size("hidden_size"), config.size("num_attention_heads")
    config.ignore(START, "final_w_init_variance_scale w_init_variance_scale")
    config.only("embeddings_scale_by_sqrt_dim", "the embedding is multiplied by sqrt(features)",
                True)  # fmt: skip
    recur = partial(
        RecurrentBlock,
        features,
        width=config.size("lru_width", features),
        heads=heads,
        conv=config.size("conv1d_width", 4),
        unscaled_start=True,
    )
    attend = attention(
        config,
        window=config.size("attention_window_size", 2048, most=LARGEST),
        out_bias=True,
        **config.rope(0.5),
    )
    names = {
        "linear_y": "W_y",
        "linear_x": "W_x",
        "linear_out": "W_out",
        "conv_1d": "conv",
        "rg_lru.recurrent_param": "rg_lru.Lambda",
        "rg_lru.input_gate_weight": "rg_lru.W_x",
        "rg_lru.input_gate_bias": Shaped("rg_lru.b_x", (heads, -1)),
        "rg_lru.recurrent_gate_weight": "rg_lru.W_a",
        "rg_lru.recurrent_gate_bias": Shaped("rg_lru.b_a", (heads, -1)),
    }
    f = config.activation("hidden_activation", "gelu_pytorch_tanh")
    mlp = partial(GLU, features, config.size("intermediate_size") // 2, f, bias=True)
    released = config("_block_types", ["recurrent", "recurrent", "attention"])
    kinds, branches = config("block_types", released), []
    config.only("_block_types", "the kinds of blocks, as block_types", kinds)
    meanings = {"recurrent": True, "attention": False}
    recurs = config.each("block_types", len(kinds), meanings, lambda: kinds)
    for i in range(config.depth()):
        recurrent = recurs[i % len(recurs)]
        branches += block(
            f"model.layers.{i}",
            ("temporal_pre_norm", "channel_pre_norm"),
            (recur, names, "temporal_block")
            if recurrent
            else (attend, ATTENTION, "temporal_block"),
            (mlp, FEED, "mlp_block"),
        )
    return describe(
        config,
        branches,
        eps=config("rms_norm_eps", 1e-6),
        last="model.final_norm",
        context=None,  # attention has a window: nothing is out of reach that it should see
        offset=1.0,
        tied=True,
        embed_scale=float(jnp.bfloat16(features**0.5)),  # kept in 16 bits by the release
        softcap=config("logits_soft_cap", 30.0),
    )
