"""The table of architectures: the model_type of a config.json -> how to describe it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from seqjax.common import unknown
from seqjax.hf import bamba, delta, gemma, jamba, kimi, lfm2, mamba, minimax, rwkv, xlstm, zamba
from seqjax.hf.config import Config
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
    "qwen3_next": delta.qwen3_next,
    "olmo_hybrid": delta.olmo_hybrid,
    "xlstm": xlstm.xlstm,
    "minimax": minimax.minimax,
    "rwkv": rwkv.rwkv,
    "kimi_linear": kimi.kimi_linear,
    "zamba": zamba.zamba,
    "zamba2": zamba.zamba2,
}
MOST = 4096  # tokens of context, unless more is asked for


def describe(fields: Mapping[str, Any], context: int | None = None) -> Description:
    """The description of a config.json, or one error that says what of it is not understood.

    context: see `seqjax.hf.read`.
    """
    config = Config(fields)
    if config.kind not in ARCHITECTURES:
        raise ValueError(unknown("model_type", config.kind, ARCHITECTURES))
    if context is not None and context < 1:
        raise ValueError(f"context must be at least 1, got {context}")
    config.context = min(config("max_position_embeddings", MOST), context or MOST)
    description = ARCHITECTURES[config.kind](config)
    config.finish()
    return description
