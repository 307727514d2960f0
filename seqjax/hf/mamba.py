"""Mamba, Falcon Mamba and Mamba-2: one mixer per block, RMSNorm before it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flax import nnx

from seqjax.hf.config import Config
from seqjax.hf.decoder import Branch, Description, Names
from seqjax.hf.tensors import Transposed
from seqjax.layers.parts import Norm
from seqjax.layers.ssm.mamba import Mamba
from seqjax.layers.ssm.mamba2 import Mamba2

MAMBA: Names = {
    "in_proj": "W_in",
    "conv1d": "conv",
    "x_proj": "W_x",
    "dt_proj.weight": Transposed("W_dt.kernel"),
    "dt_proj.bias": "dt_bias",
    "A_log": "A_log",
    "D": "D",
    "out_proj": "W_out",
}
MAMBA2: Names = {
    "in_proj": "W_in",
    "conv1d": "conv",
    "dt_bias": "dt_bias",
    "A_log": "A_log",
    "D": "D",
    "norm": "norm",
    "out_proj": "W_out",
}
NEUTRAL = """
    rescale_prenorm_residual residual_in_fp32 time_step_floor time_step_init_scheme time_step_max
    time_step_min time_step_scale use_associative_scan use_mambapy
    d_inner d_model fused_add_norm n_layer pad_vocab_size_multiple rms_norm ssm_cfg
"""


def stack(
    config: Config, layer: Callable[..., nnx.Module], names: Names, *, tied: bool
) -> Description:
    """The same mixer in every block."""
    config.neutral(NEUTRAL)
    config.only("hidden_act", "silu")
    branches = [
        Branch(layer, names, f"backbone.layers.{i}.mixer", norm=f"backbone.layers.{i}.norm")
        for i in range(config("num_hidden_layers"))
    ]
    tied = config("tie_word_embeddings", tied)
    return Description(
        vocabulary=config("vocab_size"),
        features=config("hidden_size"),
        branches=tuple(branches),
        norm=partial(Norm, eps=config("layer_norm_epsilon", 1e-5)),
        embed="backbone.embeddings",
        last="backbone.norm_f",
        head=None if tied else "lm_head",
    )


def mamba(config: Config, **options) -> Description:
    features = config("hidden_size")
    config("expand", 2)
    rank = config("time_step_rank", "auto")
    layer = partial(
        Mamba,
        features,
        state=config("state_size", 16),
        conv=config("conv_kernel", 4),
        inner=config("intermediate_size", config("expand", 2) * features),
        dt_rank=None if rank == "auto" else rank,
        bias=config("use_bias", False),
        conv_bias=config("use_conv_bias", True),
        **options,
    )
    return stack(config, layer, MAMBA, tied=True)


def falcon_mamba(config: Config) -> Description:
    """Mamba with RMSNorms without weights on the time step, B and C."""
    return mamba(config, norms="plain", norm_eps=config("mixer_rms_eps", 1e-6))


def mamba2(config: Config) -> Description:
    features, heads = config("hidden_size"), config("num_heads")
    config.neutral("time_step_rank")
    layer = partial(
        Mamba2,
        features,
        state=config("state_size", 128),
        heads=heads,
        groups=config("n_groups", 8),
        conv=config("conv_kernel", 4),
        inner=int(config("expand", 2) * features),
        dt_limit=tuple(config("time_step_limit", [0.0, float("inf")])),
        norm_eps=config("layer_norm_epsilon", 1e-5),
        bias=config("use_bias", False),
        conv_bias=config("use_conv_bias", True),
    )
    config("head_dim")  # heads * head_dim is expand * hidden_size
    return stack(config, layer, MAMBA2, tied=False)
