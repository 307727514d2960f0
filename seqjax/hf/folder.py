"""Checkpoint folders of the transformers library: config.json and *.safetensors, in and out.

    checkpoint = read("falcon-mamba/")          # a Decoder with the weights in it, and their config
    logits, h = checkpoint.model(tokens)
    write(checkpoint, "copy/")                  # the same tensors, bit by bit, and the same config

Numbers are computed in float32, whatever they are stored in, and are written as they were stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from seqjax.hf.architectures import describe
from seqjax.hf.decoder import Decoder, Description
from seqjax.hf.tensors import Rule, at, rules

INDEX = "model.safetensors.index.json"
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}


@dataclass
class Checkpoint:
    """A model and what its folder says beside the numbers."""

    model: Decoder
    description: Description
    config: str  # the text of config.json
    files: dict[str, dict[str, str]]  # file -> name of tensor -> dtype
    metadata: dict[str, str] = field(default_factory=dict)  # of the files
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def summary(self) -> str:
        """What it is, in one line."""
        kind, model = json.loads(self.config)["model_type"], self.model
        parameters = sum(math.prod(leaf.shape) for leaf in _leaves(model).values())
        state = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: model.start(1))))
        context = "" if model.context is None else f", attention sees {model.context} tokens"
        return (
            f"{kind}: {len(model.branches)} branches, {parameters:,} parameters, "
            f"state of {state:,} numbers{context}"
        )


def read(folder: str | Path, *, context: int | None = None) -> Checkpoint:
    """The checkpoint in `folder`.

    context: how many tokens full attention can look back, and so the size of its state; None: as
        the config says, at most 4096.
    Raises ValueError for an architecture or a field that is not understood, tensors that are
    missing, unknown or of another shape (all are listed), and damaged files.
    """
    folder = Path(folder)
    text = _config(folder)
    description = describe(json.loads(text), context)
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ValueError(f"there is no *.safetensors in {folder}: other formats are not read")
    model = skeleton(description)
    table = list(rules(model, description.table()))
    with ExitStack() as stack:
        where, files, metadata = {}, {}, {}
        for path in paths:
            try:
                file = stack.enter_context(safe_open(path, framework="np"))
            except SafetensorError as error:
                raise ValueError(f"{path} is damaged or cut off: {error}") from None
            where |= dict.fromkeys(file.keys(), file)
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            files[path.name] = {name: _dtype(dtype, name) for name, dtype in dtypes.items()}
            metadata |= file.metadata() or {}
        shapes = {name: tuple(f.get_slice(name).get_shape()) for name, f in where.items()}
        _check(shapes, expected(model, table), description)
        constants: dict[str, np.ndarray] = {}
        for rule in table:
            arrays = [where[name].get_tensor(name) for name in rule.theirs]
            if rule.ours:
                put(model, rule, arrays)
            else:
                _check_constant(rule, arrays)
                constants |= dict(zip(rule.theirs, arrays))
    left = [n for n, leaf in _leaves(model).items() if isinstance(leaf, jax.ShapeDtypeStruct)]
    assert not left, f"the table of {description.embed} forgets {left}"
    return Checkpoint(model, description, text, files, metadata, constants)


def write(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write the checkpoint as `read` found it, with the numbers its model has now."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(checkpoint.config)
    tensors = collect(checkpoint.model, checkpoint.description) | checkpoint.constants
    size, where = 0, {}
    for file, dtypes in checkpoint.files.items():
        content = {
            name: np.ascontiguousarray(tensors[name].astype(jnp.dtype(dtype)))
            for name, dtype in dtypes.items()
        }
        save_file(content, folder / file, metadata=checkpoint.metadata or None)
        size += sum(array.nbytes for array in content.values())
        where |= dict.fromkeys(content, file)
    if len(checkpoint.files) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2))


def skeleton(description: Description) -> Decoder:
    """The model without numbers; every parameter will be float32."""
    model = nnx.eval_shape(lambda: Decoder(description, rngs=nnx.Rngs(0)))
    for path in {path for rule in rules(model, description.table()) for path in rule.ours}:
        variable = at(model, path)
        variable.set_value(jax.ShapeDtypeStruct(variable.shape, jnp.float32))
    return model


def collect(model: nnx.Module, description: Description) -> dict[str, np.ndarray]:
    """The parameters under the names and in the shapes of the checkpoint."""
    tensors: dict[str, np.ndarray] = {}
    for rule in rules(model, description.table()):
        if rule.ours:
            arrays = [np.asarray(at(model, path).get_value()) for path in rule.ours]
            tensors |= dict(zip(rule.theirs, rule.give(arrays), strict=True))
    return tensors


def put(model: nnx.Module, rule: Rule, arrays: list[np.ndarray]) -> None:
    """Tensors of the checkpoint into our parameters."""
    ours = rule.take([array.astype(np.float32) for array in arrays])
    for path, array in zip(rule.ours, ours, strict=True):
        at(model, path).set_value(jnp.asarray(array))


def _leaves(model: nnx.Module) -> dict[str, Any]:
    flat = jax.tree_util.tree_flatten_with_path(nnx.state(model))[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}


def expected(model: nnx.Module, table: Iterable[Rule]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that the checkpoint has to have."""
    shapes: dict[str, tuple[int, ...]] = {}
    for rule in table:
        like = [np.broadcast_to(np.int8(0), at(model, path).shape) for path in rule.ours]
        shapes |= {n: a.shape for n, a in zip(rule.theirs, rule.give(like), strict=True)}
    return shapes


def _check(found: Mapping[str, Any], wanted: Mapping[str, Any], description: Description) -> None:
    missing = sorted(set(wanted) - set(found))
    other = sorted(set(found) - set(wanted))
    wrong = [n for n in sorted(wanted) if n in found and found[n] != wanted[n]]
    told = []
    for what, names in (("missing", missing), ("unknown", other)):
        if names:
            told.append(f"{len(names)} {what}: {', '.join(names)}")
    if wrong:
        list_ = (f"{n} is {list(found[n])}, expected {list(wanted[n])}" for n in wrong)
        told.append(f"{len(wrong)} of another shape: {', '.join(list_)}")
    if told:
        raise ValueError("the tensors are not those of the config. " + "; ".join(told))


def _check_constant(rule: Rule, arrays: list[np.ndarray]) -> None:
    for name, found, value in zip(rule.theirs, arrays, rule.give([]), strict=True):
        if not np.allclose(found.astype(np.float64), value, rtol=1e-2, atol=1e-6):
            raise ValueError(f"{name} should follow from the config, and has other numbers")


def _config(folder: Path) -> str:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no checkpoint folder: it has no config.json")
    text = path.read_text()
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} does not hold the fields of a config")
    return text


def _dtype(name: str, tensor: str) -> str:
    if name not in DTYPES:
        raise ValueError(f"{tensor} is stored as {name}; only {', '.join(DTYPES)} are read")
    return DTYPES[name]
