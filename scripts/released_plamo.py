"""A port of the code that PLaMo 2 was released with: that of mlx-examples, line by line from it.

    pip install torch "mlx[cpu]"
    RELEASED_CODE=plamo/ python -m scripts.released NAME..

RELEASED_CODE is a folder with llms/mlx_lm/models/{plamo2,base,cache}.py of ml-explore/mlx-examples
at 00d13ebd, and an empty __init__.py. It computes in float32, and repeats keys head by head as the
release does only where there is one of them, or one for each query. Token by token its convolutions
take one tap, so that these logits are others.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file


def prepare(fields: Mapping[str, Any]) -> Any:
    """A reader of the config, and a maker of the model with the methods of torch that are used."""
    import mlx.core as mx  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]
    from mlx.utils import tree_flatten, tree_unflatten  # pyright: ignore[reportMissingImports]

    folder = Path(os.environ["RELEASED_CODE"]).resolve()
    sys.path.insert(0, str(folder.parent))
    own: Any = importlib.import_module(f"{folder.name}.plamo2")
    mx.set_default_device(mx.cpu)

    def turned(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Convolutions as torch has them, or as mlx has them."""
        return {
            name: np.ascontiguousarray(np.swapaxes(z, 1, 2)) if "conv1d" in name else z
            for name, z in tensors.items()
        }

    class Model:
        def __init__(self, fields: Mapping[str, Any]):
            given = {name: value for name, value in fields.items() if name != "model_type"}
            self.fields, self.model = fields, own.Model(own.ModelArgs(**given))

        def save_pretrained(self, at: Path) -> None:
            found = dict(tree_flatten(self.model.parameters()))
            tensors = {n: np.array(z) for n, z in found.items() if "rotary_emb" not in n}
            save_file(turned(tensors), at / "model.safetensors")

        def named_buffers(self) -> list:
            return []

        def eval(self) -> Model:
            self.model.eval()
            return self

        def forward(self, input_ids: Any, use_cache: bool, cache: Any = None) -> Any:
            if cache is None:
                self.model._cache = None  # it keeps the state
            y = torch.tensor(np.array(self.model(mx.array(input_ids.numpy()))))
            return Outputs(logits=y, cache=use_cache)

        __call__ = forward

    class Outputs(dict):
        @property
        def logits(self) -> Any:
            return self["logits"]

    class Configs:
        @staticmethod
        def from_pretrained(at: Path) -> Any:
            read = json.loads((at / "config.json").read_text())
            text = SimpleNamespace(vocab_size=read["vocab_size"])
            return SimpleNamespace(fields=read, get_text_config=lambda: text)

    class Models:
        @staticmethod
        def from_config(config: Any, dtype: Any) -> Model:
            return Model(config.fields)

        @staticmethod
        def from_pretrained(at: Path, **options: Any) -> Model:
            made = Model(json.loads((at / "config.json").read_text()))
            tensors = turned(load_file(at / "model.safetensors"))
            made.model.update(tree_unflatten([(n, mx.array(z)) for n, z in tensors.items()]))
            return made

    return Configs, Models
