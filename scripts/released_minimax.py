"""The code of its own that MiniMax-Text-01 was released with, on the CPU.

    pip install torch "transformers==4.45.2" einops
    RELEASED_CODE=minimax-text-01/ python -m scripts.released NAME..

RELEASED_CODE is a folder with configuration_minimax_text_01.py and modeling_minimax_text_01.py. All
of it is the original; flash-attn, which needs a GPU, is softmax attention as torch has it. It keeps
states in float32 and cannot be run in float64.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def flash_attn_func(q, k, v, dropout=0.0, softmax_scale=None, causal=False):
    """softmax(K^-1/2 q k) v [B, T, H, K], as flash_attn has it."""
    import torch  # pyright: ignore[reportMissingImports]

    k, v = (z.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for z in (k, v))
    scores = torch.einsum("bthk,bshk->bhts", q, k) * (softmax_scale or q.shape[-1] ** -0.5)
    if causal:
        later = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return torch.einsum("bhts,bshv->bthv", scores.softmax(-1), v)


def prepare(fields: Mapping[str, Any]) -> Any:
    """The classes of the release for its config and its model."""
    folder = Path(os.environ["RELEASED_CODE"]).resolve()
    sys.path.insert(0, str(folder.parent))
    own: Any = importlib.import_module(f"{folder.name}.modeling_minimax_text_01")
    own.flash_attn_func, own._flash_supports_window_size = flash_attn_func, False
    config, model = own.MiniMaxText01Config, own.MiniMaxText01ForCausalLM
    config.model_type = fields["model_type"]

    return classes(config, model)


def classes(config: Any, model: Any) -> Any:
    """What reads a config.json, and what makes a model and reads one, as Auto classes do."""

    class Configs:
        @staticmethod
        def from_pretrained(at: Path) -> Any:
            return config(**json.loads((at / "config.json").read_text()))

    class Models:
        @staticmethod
        def from_config(config: Any, dtype: Any) -> Any:
            return model(config).to(dtype)

        @staticmethod
        def from_pretrained(at: Path, dtype: Any, **options: Any) -> Any:
            return model.from_pretrained(at, torch_dtype=dtype)

    return Configs, Models
