"""xLSTM-7B: mLSTM with capped gates, and a gated linear unit."""

from __future__ import annotations

import math
from functools import partial

from seqjax.hf.config import RUNNING, START, TOKENS, TRAINING, UNREAD, Config
from seqjax.hf.decoder import Description
from seqjax.hf.parts import block, describe
from seqjax.hf.tensors import Joined
from seqjax.layers.linear_attention.mlstm import MLSTM
from seqjax.nn.linear import GLU

KERNELS = """
    add_forward_backend_padding autocast_kernel_dtype chunkwise_kernel forward_backend_name
    inference_state_dtype max_inference_chunksize mode norm_reduction_force_float32
    return_last_states sequence_kernel step_backend_name step_kernel
"""
FEED = {"proj_up_gate": "W_1", "proj_up": "W_2", "proj_down": "W_3"}


def xlstm(config: Config) -> Description:
    """xLSTM-7B (NX-AI/xLSTM-7b), arXiv:2503.13427.

        x <- x + mlstm(rms(x))               gates capped, 15 tanh(z / 15)
        x <- x + W_3 (silu(W_1 n) * W_2 n)   n = rms(x)
        y  = 30 tanh(W rms(x) / 30)          the logits

    The published config calls its sizes embedding_dim and num_blocks.
    """
    features = config.size("embedding_dim", config.size("hidden_size", 4096))
    heads, eps = config.size("num_heads", 8), config("norm_eps", 1e-6)
    # num_hidden_layers stands at its default of 32 in configs whose num_blocks is another
    depth = config.depth("num_blocks", config.depth("num_hidden_layers", 32))
    config.ignore(RUNNING, KERNELS)
    config.ignore(START, "igate_bias_init_range")
    config.ignore(TRAINING, "add_embedding_dropout")
    config.ignore(TOKENS, "force_bos_token_insert")
    config.ignore(UNREAD, "head_dim mlstm_round_up_to_multiple_of")
    config.only("hidden_size", "it must equal embedding_dim", features)
    config.only("weight_mode", "whether matrices are fused into one", "single")
    config.only("use_bias", "biases of the matrices", False)
    config.only("add_out_norm", "a norm before the head", True)
    config.only("add_post_blocks_norm", "a norm before the head", True)
    config.only("add_post_norm", "a norm after every branch", False)
    config.only("add_qk_norm", "norms of the queries and keys", False)
    config.only("eps", "what the normaliser is kept from 0 by", 1e-6)
    config.only("cell_norm_eps", "the norm in the cell; it must equal norm_eps", eps)
    mix = partial(
        MLSTM,
        features,
        heads=heads,
        key_size=int(features * config("qk_dim_factor", 0.5)) // heads,
        value_size=int(features * config("v_dim_factor", 1.0)) // heads,
        bias=False,
        gate_cap=config("gate_soft_cap", 15.0),
        norm_eps=eps,
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
    multiple = config.size("ffn_round_up_to_multiple_of", 64)
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
        eps=eps,
        features=features,
        embed="backbone.embeddings",
        last="backbone.out_norm",
        softcap=config("output_logit_soft_cap", 30.0),
    )
