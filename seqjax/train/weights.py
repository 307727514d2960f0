"""A trained model alone, without what its run went through: for others to use.

    FOLDER/config.json            the config of its run, and the step it is of
    FOLDER/weights.safetensors    its arrays by name; floats perhaps of 16 bits

What takes a run takes such a folder too, but for going on with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save

from seqjax.core.files import write_atomically
from seqjax.train.checkpoint import CheckpointError
from seqjax.train.layout import placed

FILE = "weights.safetensors"


def stored(folder: str | Path) -> bool:
    """Whether `load` reads this folder."""
    return (Path(folder) / FILE).is_file()


def store(
    run: str | Path, folder: str | Path, step: int, arrays: Mapping[str, Any], dtype: str
) -> None:
    """Write what `load` reads: the config of the run, its arrays, floats of this dtype."""
    recorded = json.loads((Path(run) / "config.json").read_text())
    kept = {name: recorded[name] for name in ("config", "data", "size")} | {"step": step}
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    plain = {
        name: array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in plain.items()
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.json", json.dumps(kept, indent=2) + "\n")
    write_atomically(folder / FILE, save(plain))


def load(folder: str | Path) -> tuple[dict[str, np.ndarray], int]:
    """The stored arrays, floats of 32 bits at least, and the step they are of."""
    step = json.loads((Path(folder) / "config.json").read_text())["step"]
    found = load_file(Path(folder) / FILE)
    return {n: a.astype("float32") if a.dtype == "float16" else a for n, a in found.items()}, step


def restore(folder: str | Path, like: Mapping[str, Any]) -> tuple[dict[str, jax.Array], int]:
    """`load` for a model of arrays `like`. Raises CheckpointError where it is another."""
    found, step = load(folder)
    differ = sorted(set(found) ^ set(like)) or [
        name for name, array in like.items() if found[name].shape != array.shape
    ]
    if differ:
        raise CheckpointError(
            f"{folder} is of another model: it differs in {', '.join(differ[:5])}"
        )
    return {n: placed(np.asarray(found[n], array.dtype), array) for n, array in like.items()}, step
