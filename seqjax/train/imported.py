"""An imported checkpoint in our own format, under the names of our parameters.

FOLDER/config.json      the config of the checkpoint, as it came
FOLDER/tokenizer.json   and what else goes with the weights (see `seqjax.hf.files`), as it came
FOLDER/checkpoints/     every parameter by name, sealed (see `seqjax.train.checkpoint`)
"""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.hf.architectures import describe
from seqjax.hf.decoder import Decoder, Description
from seqjax.hf.files import CONFIG, carried, new_folder, plain_name, read_config
from seqjax.hf.folder import Checkpoint, skeleton
from seqjax.hf.tensors import at, rules
from seqjax.stacks.config import ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Spec
from seqjax.train.checkpoint import CheckpointError, Checkpoints


def store(checkpoint: Checkpoint, folder: str | Path, *, weights: bool = True) -> None:
    """Write the checkpoint, or all but its weights, into a new or empty folder for `load`."""
    with new_folder(folder) as partial:
        with Checkpoints(partial / "checkpoints") as checkpoints:
            model, constants = checkpoint.model, checkpoint.constants
            extra = {
                "files": checkpoint.files,
                "metadata": checkpoint.metadata,
                "constants": list(constants),  # their names are of a file: no part of a path
                "context": checkpoint.context,
                "layout": checkpoint.description.layout,
                "base": checkpoint.description.base,
            }
            names = paths(checkpoint) if weights else []
            arrays = {f"model.{path}": at(model, path).get_value() for path in names}
            arrays |= {f"constant.{n}": array for n, array in enumerate(constants.values())}
            checkpoints.save(0, arrays, extra)
        for name, content in checkpoint.carried.items():
            (partial / plain_name(name, "the checkpoint")).write_bytes(content)
        (partial / CONFIG).write_text(checkpoint.config, encoding="utf-8")


def load(folder: str | Path, *, context: int | None = None, weights: bool = True) -> Checkpoint:
    """What `store` wrote; context as in `seqjax.hf.read`, by default the one it was read with.

    weights: False where they are elsewhere; the model then is one of shapes.
    """
    folder = Path(folder)
    text, fields = read_config(folder)
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        arrays, extra = checkpoints.read()
    arrays = {renamed(name): array for name, array in arrays.items()}
    if "layout" not in extra:
        raise CheckpointError(f"{folder} was written by another version: import it once more")
    context, names = context or extra["context"], extra["constants"]
    base = extra.get("base", False)  # not written by older versions
    description = describe(fields, context, extra["layout"], base=base)
    checkpoint = Checkpoint(
        skeleton(description), description, text, extra["files"], extra["metadata"],
        {name: np.asarray(arrays[f"constant.{n}"]) for n, name in enumerate(names)},
        carried(folder), context,
    )  # fmt: skip
    for path in paths(checkpoint) if weights else ():
        if f"model.{path}" not in arrays:
            raise CheckpointError(f"{folder} was written by another version: it has no {path}")
        at(checkpoint.model, path).set_value(jnp.asarray(arrays[f"model.{path}"]))
    return checkpoint


def build(
    config: ModelConfig, spec: Spec, description: Description | None, *, rngs: nnx.Rngs
) -> Model:
    """The model of a run; description: of one that was imported."""
    if description is None:
        return Model(config, spec, rngs=rngs)
    return Decoder(description, config, spec, rngs=rngs)


def stored(folder: str | Path) -> bool:
    """Whether `load` reads this folder."""
    folder = Path(folder)
    if not (folder / CONFIG).is_file() or not (folder / "checkpoints").is_dir():
        return False
    return "model_type" in read_config(folder)[1]


def renamed(name: str) -> str:
    """The name of a parameter, also of one stored before there was one model for all."""
    old = {"model.branches.": "model.tail.", "model.first.": "model.embed.norm."}
    before = next((prefix for prefix in old if name.startswith(prefix)), "")
    return old[before] + name.removeprefix(before) if before else name


def paths(checkpoint: Checkpoint) -> list[str]:
    table = checkpoint.description.table()
    return [path for rule in rules(checkpoint.model, table) for path in rule.ours]
