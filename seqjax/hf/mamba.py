"""Mamba, Falcon Mamba and Mamba-2: one mixer per block, RMSNorm before it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flax import nnx

from seqjax.hf.config import RUNNING, START, TRAINING, UNREAD, Config
from seqjax.hf.decoder import Branch, Description, Names
from seqjax.hf.tensors import Shaped, Transposed
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


OF_FLA = "norm_eps"  # has flash-linear-attention, whose config.json has the same model_type
FLA_FIRST = "A_init_range conv_init dt_init_floor dt_init_scheme dt_max dt_min dt_scale"


def of_fla(config: Config) -> bool:
    """Whether flash-linear-attention saved it, which names some fields otherwise."""
    return OF_FLA in config.fields


def stack(
    config: Config, layer: Callable[..., nnx.Module], names: Names, *, tied: bool
) -> Description:
    """The same mixer in every block."""
    config.ignore(START, FIRST)
    config.ignore(RUNNING, f"{KERNELS} residual_in_fp32")
    config.ignore(UNREAD, ORIGIN)  # of the library that the weights were made with
    if of_fla(config):
        config.ignore(START, FLA_FIRST)
        config.ignore(RUNNING, "fuse_norm fuse_cross_entropy fuse_linear_cross_entropy")
        config.ignore(TRAINING, "use_l2warp")
    config.only("hidden_act", "the activation around the recurrence", "silu")
    branches = [
        Branch(layer, names, f"backbone.layers.{i}.mixer", norm=f"backbone.layers.{i}.norm")
        for i in range(config.depth())
    ]
    return Description(
        vocabulary=config.size("vocab_size"),
        features=config.size("hidden_size"),
        branches=tuple(branches),
        norm=partial(Norm, eps=epsilon(config)),
        embed="backbone.embeddings",
        last="backbone.norm_f",
        tied=config("tie_word_embeddings", tied and not of_fla(config)),
    )


def epsilon(config: Config) -> float:
    return config(OF_FLA if of_fla(config) else "layer_norm_epsilon", 1e-5)


def rank(config: Config, name: str) -> int | None:
    """The rank of the projection of the time step; None: a sixteenth of the features."""
    return None if config(name, "auto") == "auto" else config.size(name)


def mamba(config: Config, **options) -> Description:
    """Mamba (state-spaces/mamba-130m-hf to mamba-2.8b-hf), arXiv:2312.00752.

    x <- x + mamba(rms(x))   in every block; the head is the embedding

    As flash-linear-attention saves it too, where the head is its own.
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
        dt_rank=rank(config, "dt_rank" if of_fla(config) else "time_step_rank"),
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

    As flash-linear-attention saves it too: with D per channel, the norm before the gate, or none.
    (Its code without CUDA mixes up groups of B and C in whole sequences, not step by step.)
    """
    features, heads = config.size("hidden_size"), config.size("num_heads")
    inner = int(config("expand", 2) * features)
    config.ignore(UNREAD, "intermediate_size time_step_rank")
    config.only("head_dim", "the channels of a head are expand * hidden_size / num_heads",
                inner // heads)  # fmt: skip
    fla, names, options = of_fla(config), {}, {}
    if fla:
        channels = config("D_has_hdim", False)
        names = {"D": Shaped("D", (-1,))} if channels else {}
        options = dict(D_per_channel=channels, norm_first=config("norm_before_gate", False))
        if not config("rmsnorm", True):
            options["norm_groups"] = 0
    layer = partial(
        Mamba2,
        features,
        state=config.size("state_size", 128),
        heads=heads,
        groups=config.size("n_groups", 1 if fla else 8),
        conv=config.size("conv_kernel", 4),
        inner=inner,
        dt_limit=tuple(config("dt_limit" if fla else "time_step_limit", [0.0, float("inf")])),
        norm_eps=epsilon(config),
        bias=config("use_bias", False),
        conv_bias=config("use_conv_bias", True),
        **options,
    )
    return stack(config, layer, {**MAMBA2, **names}, tied=False)
