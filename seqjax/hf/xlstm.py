"""xLSTM-7B: mLSTM with capped gates, and a gated linear unit."""

from __future__ import annotations

import math
from functools import partial

from seqjax.hf.config import Config
from seqjax.hf.decoder import Description
from seqjax.hf.parts import block, describe
from seqjax.hf.tensors import Joined
from seqjax.layers.linear_attention.mlstm import MLSTM
from seqjax.layers.parts import GLU

NEUTRAL = """
    autocast_kernel_dtype chunkwise_kernel inference_state_dtype max_inference_chunksize mode
    norm_reduction_force_float32 return_last_states sequence_kernel step_kernel
"""
FEED = {"proj_up_gate": "W_1", "proj_up": "W_2", "proj_down": "W_3"}


def xlstm(config: Config) -> Description:
    features, heads = config("hidden_size"), config("num_heads")
    depth = config("num_hidden_layers", config("num_blocks", 1))
    config.neutral(NEUTRAL)
    config.only("weight_mode", "single")
    config.only("use_bias", False)
    config.only("add_out_norm", True)
    config.only("eps", 1e-6)
    config.only("embedding_dim", features)
    config.only("num_blocks", depth)
    mix = partial(
        MLSTM,
        features,
        heads=heads,
        key_size=int(features * config("qk_dim_factor", 0.5)) // heads,
        value_size=int(features * config("v_dim_factor", 1.0)) // heads,
        bias=False,
        gate_cap=config("gate_soft_cap", 15.0),
        norm_eps=config("norm_eps", 1e-6),
    )
    names = {
        "q": "W_q",
        "k": "W_k",
        "v": "W_v",
        "ogate_preact": "W_o",
        ("igate_preact", "fgate_preact"): Joined("w_if", (heads, heads)),
        "igate_preact.bias": "b_i",
        "fgate_preact.bias": "b_f",
        "multihead_norm": "norm",
        "out_proj": "W_out",
    }
    multiple = config("ffn_round_up_to_multiple_of", 64)
    inner = math.ceil(config("ffn_proj_factor", 2.667) * features / multiple) * multiple
    mlp = partial(GLU, features, inner, config.activation("hidden_act"))
    branches = []
    for i in range(depth):
        branches += block(
            f"backbone.blocks.{i}",
            ("norm_mlstm", "norm_ffn"),
            (mix, names, "mlstm_layer"),
            (mlp, FEED, "ffn"),
        )
    return describe(
        config,
        branches,
        eps=config("norm_eps", 1e-6),
        embed="backbone.embeddings",
        last="backbone.out_norm",
        softcap=config("output_logit_soft_cap", 30.0),
    )
