"""An imported checkpoint in our own format, under the names of our parameters.

FOLDER/config.json      the config of the checkpoint, as it came
FOLDER/checkpoints/     every parameter by name, sealed (see `seqjax.checkpoint`)
"""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from seqjax.checkpoint import CheckpointError, Checkpoints
from seqjax.hf.architectures import describe
from seqjax.hf.folder import Checkpoint, skeleton
from seqjax.hf.tensors import at, rules


def store(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write the checkpoint into a folder that `load` reads."""
    folder = Path(folder)
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} holds something already: import into a new folder")
    with Checkpoints(folder / "checkpoints") as checkpoints:
        model = checkpoint.model
        extra = {"files": checkpoint.files, "metadata": checkpoint.metadata}
        arrays = {f"model.{path}": at(model, path).get_value() for path in paths(checkpoint)}
        constants = {f"constant.{name}": array for name, array in checkpoint.constants.items()}
        checkpoints.save(0, arrays | constants, extra)
    (folder / "config.json").write_text(checkpoint.config)


def load(folder: str | Path, *, context: int | None = None) -> Checkpoint:
    """What `store` wrote; context as in `seqjax.hf.read`."""
    folder = Path(folder)
    text = (folder / "config.json").read_text()
    description = describe(json.loads(text), context)
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        arrays, extra = checkpoints.read()
    checkpoint = Checkpoint(skeleton(description), description, text, **extra)
    for path in paths(checkpoint):
        if f"model.{path}" not in arrays:
            raise CheckpointError(f"{folder} was written by another version: it has no {path}")
        at(checkpoint.model, path).set_value(jnp.asarray(arrays[f"model.{path}"]))
    prefix = "constant."
    checkpoint.constants = {
        name.removeprefix(prefix): np.asarray(array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    return checkpoint


def stored(folder: str | Path) -> bool:
    """Whether `load` reads this folder."""
    path = Path(folder) / "config.json"
    return (
        path.is_file()
        and "model_type" in json.loads(path.read_text())
        and (Path(folder) / "checkpoints").is_dir()
    )


def paths(checkpoint: Checkpoint) -> list[str]:
    table = checkpoint.description.table()
    return [path for rule in rules(checkpoint.model, table) for path in rule.ours]
