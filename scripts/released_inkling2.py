"""Inkling 2 of transformers, in float64 where that is wanted.

    pip install torch transformers
    python -m scripts.released NAME..

Its code computes much in float32 whatever the dtype of its weights: norms, softmaxes, gates, sums
of experts. A difference of 1e-7 there is one of 1e-4 in the logits of a loop of small blocks. In
float64 all of these are float64 here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any
from unittest.mock import patch

from scripts import released


def prepare(fields: Mapping[str, Any]) -> Any:
    """The classes of transformers; of a model that is read in float64 all is."""
    import torch  # pyright: ignore[reportMissingImports]

    configs, models = released.transformers(fields)

    def widened(model: Any) -> Any:
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.data.double()
        forward = model.forward

        @wraps(forward)
        def call(*given: Any, **named: Any) -> Any:
            wide = patch.object(torch, "float32", torch.float64)
            with wide, patch.object(torch.Tensor, "float", torch.Tensor.double):
                return forward(*given, **named)

        model.forward = call
        return model

    class Models:
        from_config = models.from_config

        @staticmethod
        def from_pretrained(at: Any, *, dtype: Any, **options: Any) -> Any:
            model = models.from_pretrained(at, dtype=dtype, **options)
            return widened(model) if dtype == torch.float64 else model

    return configs, Models
