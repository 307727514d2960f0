"""The table of architectures: the model_type of a config.json -> how to describe it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from seqjax.core.common import unknown
from seqjax.hf import (
    bailing,
    bamba,
    delta,
    fla,
    fla_gated,
    fla_linear,
    fla_rwkv,
    gemma,
    glm,
    inkling,
    inkling2,
    inkling2_loop,
    jamba,
    kimi,
    lara,
    lfm2,
    mamba,
    minimax,
    nemotron,
    plamo,
    qwen,
    qwen4,
    rwkv,
    xlstm,
    zamba,
    zaya,
)
from seqjax.hf.config import DEEPEST, LARGEST, Config, describing
from seqjax.hf.decoder import Description

ARCHITECTURES: dict[str, Callable[[Config], Description]] = {
    "mamba": mamba.mamba,
    "mamba2": mamba.mamba2,
    "falcon_mamba": mamba.falcon_mamba,
    "bamba": bamba.bamba,
    "granitemoehybrid": bamba.granite,
    "falcon_h1": bamba.falcon_h1,
    "jamba": jamba.jamba,
    "recurrent_gemma": gemma.recurrent_gemma,
    "lfm2": lfm2.lfm2,
    "lfm2_moe": lfm2.lfm2_moe,
    "lfm3": lfm2.lfm3,
    "qwen3_next": qwen.qwen3_next,
    "qwen3_5": qwen.qwen3_5,
    "qwen3_5_text": qwen.qwen3_5_text,
    "qwen3_5_moe": qwen.qwen3_5_moe,
    "qwen3_5_moe_text": qwen.qwen3_5_moe_text,
    "qwen4_exp": qwen4.qwen4_exp,
    "qwen4_exp_text": qwen4.qwen4_exp_text,
    "nemotron_h": nemotron.nemotron_h,
    "olmo_hybrid": delta.olmo_hybrid,
    "xlstm": xlstm.xlstm,
    "minimax": minimax.minimax,
    "minimax_text_01": minimax.minimax_text_01,
    "minimax_m1": minimax.minimax_text_01,
    "bailing_hybrid": bailing.bailing_hybrid,
    "glm5_next": glm.glm5_next,
    "inkling_text": inkling.inkling_text,
    "inkling_mm_model": inkling.inkling_mm_model,
    "inkling2": inkling2.inkling2,
    "inkling2_text": inkling2.inkling2_text,
    "inkling2_loop": inkling2_loop.inkling2_loop,
    "inkling2_loop_text": inkling2_loop.inkling2_loop_text,
    "zaya": zaya.zaya,
    "plamo2": plamo.plamo2,
    "lara_mini": lara.lara_mini,
    "rwkv": rwkv.rwkv,
    "kimi_linear": kimi.kimi_linear,
    "zamba": zamba.zamba,
    "zamba2": zamba.zamba2,
    "transformer": fla.transformer,
    "samba": fla.samba,
    "forgetting_transformer": fla.forgetting_transformer,
    "delta_net": fla.delta_net,
    "gated_deltanet": fla.gated_deltanet,
    "gated_deltaproduct": fla.gated_deltaproduct,
    "comba": fla.comba,
    "kda": fla.kda,
    "gla": fla_gated.gla,
    "retnet": fla_gated.retnet,
    "hgrn2": fla_gated.hgrn2,
    "hgrn": fla_gated.hgrn,
    "gsa": fla_gated.gsa,
    "linear_attn": fla_linear.linear_attn,
    "mesa_net": fla_linear.mesa_net,
    "rwkv6": fla_rwkv.rwkv6,
    "rwkv7": fla_rwkv.rwkv7,
}


# Other recurrent models of the transformers library, and why they are not read.
NOT_READ = {
    "abc": "its layer is here (abc): its files were compared with nothing yet",
    "deltaformer": "its layer is here (deltaformer): its files were compared with nothing yet",
    "lightnet": "its layer is here (lightnet): its files were compared with nothing yet",
    "log_linear_mamba2": "its code runs on GPUs alone: it was compared with nothing yet",
    "mamba3": "its kernels, of mamba_ssm, run on GPUs alone: it was compared with nothing yet",
    "path_attn": "positions by products of Householder matrices have no layer here",
}


def describe(
    fields: Mapping[str, Any],
    context: int | None = None,
    layout: int = 0,
    *,
    base: bool = False,
    most: int = LARGEST,
    deepest: int = DEEPEST,
) -> Description:
    """The description of a config.json, or one error that names what of it is not understood.

    context: see `seqjax.hf.read`.
    layout: which of the ways in which releases of the reference saved the same numbers.
    base: as AutoModel saves it, without a head and without the first part of the names.
    most, deepest: how many numbers and tensors there are, which bound all sizes and the depth.
    """
    kind = fields.get("model_type")
    if isinstance(kind, str) and kind in NOT_READ:
        raise ValueError(f"{kind} is not read: {NOT_READ[kind]}")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ValueError(unknown("model_type", kind, ARCHITECTURES))
    config = Config(fields, most, deepest, context)
    config.layout = layout
    with describing():
        description = ARCHITECTURES[kind](config)
    description = replace(description, ignored=config.finish(), layout=layout)
    return description.without_head() if base else description
