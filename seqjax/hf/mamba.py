"""Mamba, Falcon Mamba and Mamba-2: one mixer per block, RMSNorm before it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flax import nnx

from seqjax.hf.config import RUNNING, START, UNREAD, Config
from seqjax.hf.decoder import Branch, Description, Names
from seqjax.hf.tensors import Transposed
from seqjax.layers.ssm.mamba import Mamba
from seqjax.layers.ssm.mamba2 import Mamba2
from seqjax.nn.norms import Norm

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
FIRST = """
    rescale_prenorm_residual time_step_floor time_step_init_scheme time_step_max time_step_min
    time_step_scale
"""
KERNELS = "use_associative_scan use_mamba_kernels use_mambapy use_falcon_mambapy"
ORIGIN = """
    attn_cfg attn_layer_idx d_inner d_intermediate d_model fused_add_norm n_layer norm_before_gate
    pad_vocab_size_multiple rms_norm ssm_cfg
"""


def stack(
    config: Config, layer: Callable[..., nnx.Module], names: Names, *, tied: bool
) -> Description:
    """The same mixer in every block."""
    config.ignore(START, FIRST)
    config.ignore(RUNNING, f"{KERNELS} residual_in_fp32")
    config.ignore(UNREAD, ORIGIN)  # of the library that the weights were made with
    config.only("hidden_act", "the activation around the recurrence", "silu")
    branches = [
        Branch(layer, names, f"backbone.layers.{i}.mixer", norm=f"backbone.layers.{i}.norm")
        for i in range(config.depth())
    ]
    return Description(
        vocabulary=config.size("vocab_size"),
        features=config.size("hidden_size"),
        branches=tuple(branches),
        norm=partial(Norm, eps=config("layer_norm_epsilon", 1e-5)),
        embed="backbone.embeddings",
        last="backbone.norm_f",
        tied=config("tie_word_embeddings", tied),
    )


def rank(config: Config, name: str) -> int | None:
    """The rank of the projection of the time step; None: a sixteenth of the features."""
    return None if config(name, "auto") == "auto" else config.size(name)


def mamba(config: Config, **options) -> Description:
    """Mamba (state-spaces/mamba-130m-hf to mamba-2.8b-hf), arXiv:2312.00752.

    x <- x + mamba(rms(x))   in every block; the head is the embedding
    """
    features = config.size("hidden_size")
    inner = config.size("intermediate_size", None) or int(config("expand", 2) * features)
    config.ignore("intermediate_size is read", "expand")
    layer = partial(
        Mamba,
        features,
        state=config.size("state_size", 16),
        conv=config.size("conv_kernel", 4),
        inner=inner,
        dt_rank=rank(config, "time_step_rank"),
        bias=config("use_bias", False),
        conv_bias=config("use_conv_bias", True),
        **options,
    )
    return stack(config, layer, MAMBA, tied=True)


def falcon_mamba(config: Config) -> Description:
    """Falcon Mamba (tiiuae/falcon-mamba-7b), arXiv:2410.05355.

        x <- x + mamba(rms(x))   in every block

    The time step, B and C of a token pass an RMSNorm without weights.
    """
    return mamba(config, norms="plain", norm_eps=config("mixer_rms_eps", 1e-6))


def mamba2(config: Config) -> Description:
    """Mamba-2 (mistralai/Mamba-Codestral-7B-v0.1), arXiv:2405.21060.

    x <- x + mamba2(rms(x))   in every block
    """
    features, heads = config.size("hidden_size"), config.size("num_heads")
    inner = int(config("expand", 2) * features)
    config.ignore(UNREAD, "intermediate_size time_step_rank")
    config.only("head_dim", "the channels of a head are expand * hidden_size / num_heads",
                inner // heads)  # fmt: skip
    layer = partial(
        Mamba2,
        features,
        state=config.size("state_size", 128),
        heads=heads,
        groups=config.size("n_groups", 8),
        conv=config.size("conv_kernel", 4),
        inner=inner,
        dt_limit=tuple(config("time_step_limit", [0.0, float("inf")])),
        norm_eps=config("layer_norm_epsilon", 1e-5),
        bias=config("use_bias", False),
        conv_bias=config("use_conv_bias", True),
    )
    return stack(config, layer, MAMBA2, tied=False)
