"""Checkpoint folders of the transformers library: config.json and *.safetensors, in and out.

    checkpoint = read("falcon-mamba/")          # a Model with the weights in it, and their config
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

from seqjax.core.common import printable
from seqjax.hf.architectures import describe
from seqjax.hf.config import describing
from seqjax.hf.decoder import Bare, Decoder, Description
from seqjax.hf.files import (
    CONFIG,
    INDEX,
    WEIGHTS,
    carried,
    new_folder,
    plain_name,
    read_config,
    weights,
)
from seqjax.hf.tensors import Rule, at, rules

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",  # of constants alone
}


@dataclass
class Checkpoint:
    """A model and what its folder holds beside the numbers."""

    model: Decoder
    description: Description
    config: str  # the text of config.json
    files: dict[str, dict[str, str]]  # file -> name of tensor -> dtype
    metadata: dict[str, str] = field(default_factory=dict)  # of the files
    constants: dict[str, np.ndarray] = field(default_factory=dict)  # no parameter holds them
    carried: dict[str, bytes] = field(default_factory=dict)  # tokenizer and sampling: name -> file
    context: int | None = None  # as given to `read`
    unread: list[str] = field(default_factory=list)  # other *.safetensors in the folder

    def summary(self) -> str:
        """What it is, in one line, and in further ones what of its folder does not enter."""
        kind, model = json.loads(self.config)["model_type"], self.model
        parameters = sum(math.prod(leaf.shape) for leaf in _leaves(model).values())
        state = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: model.start(1))))
        context = "" if model.context is None else f", attention sees {model.context} tokens"
        lines = [
            f"{kind}: {len(model.tail)} branches, {parameters:,} parameters, "
            f"state of {state:,} numbers{context}"
        ]
        if isinstance(model.head, Bare):
            lines.append("    it has no head: it returns features, or takes the head of a task")
        reasons: dict[str, list[str]] = {}
        for name, reason in sorted(self.description.ignored.items()):
            reasons.setdefault(f"ignored in {CONFIG}, {reason}", []).append(name)
        beside = [n for n in self.constants if n.startswith(self.description.beside)]
        if beside:
            reasons["tensors that no logit needs, kept for export"] = beside
        if self.unread:
            reasons["files that are not read"] = self.unread
        lines += [f"    {reason}: {', '.join(names)}" for reason, names in reasons.items()]
        return printable("\n".join(lines))


def read(folder: str | Path, *, context: int | None = None) -> Checkpoint:
    """The checkpoint in `folder`: what its index lists, or model.safetensors.

    context: how many tokens full attention can look back, and so the size of its state; None: as
        the config allows, at most 4096.
    A model that was saved without a head (AutoModel) returns features [B, T, features], unless its
    head is the embedding.
    Raises ValueError for an architecture or a field that is not understood, tensors that are
    missing, unknown, of another shape or in two files (all are listed), numbers that are not
    finite, and damaged files.
    """
    folder = Path(folder)
    text, fields = read_config(folder)
    with ExitStack() as stack:
        where, files, metadata, unread = _open(folder, stack)
        shapes = {name: tuple(f.get_slice(name).get_shape()) for name, f in where.items()}
        stored = sum(map(math.prod, shapes.values()))
        limits: dict[str, Any] = dict(most=stored, deepest=len(where))
        description = describe(fields, context, **limits)
        if shapes and not any(name.startswith(description.prefix) for name in shapes):
            limits["base"], description = True, description.without_head()
        model, table, wrong = _fit(description, shapes)
        for layout in range(1, description.layouts if wrong else 1):
            other = describe(fields, context, layout, **limits)
            found = _fit(other, shapes)
            if not found[2]:
                description, (model, table, wrong) = other, found
        if wrong:
            raise ValueError(f"the tensors are not those of the config. {wrong}")
        constants = _fill(model, table, where)
        for name in where:
            if name.startswith(description.beside):
                constants[name] = where[name].get_tensor(name)
        if description.copy and description.copy in where:
            _check_copy(where, description.copy, f"{description.embed}.weight")
    left = [n for n, leaf in _leaves(model).items() if isinstance(leaf, jax.ShapeDtypeStruct)]
    assert not left, f"the table of {description.embed} forgets {left}"
    return Checkpoint(
        model, description, text, files, metadata, constants, carried(folder), context, unread
    )


def write(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write the checkpoint as `read` found it, with the numbers its model has now.

    folder: new or empty. Raises ValueError where something is in it.
    """
    description = checkpoint.description
    files = {plain_name(name, "the checkpoint"): d for name, d in checkpoint.files.items()}
    beside = {plain_name(name, "the checkpoint"): b for name, b in checkpoint.carried.items()}
    tensors = collect(checkpoint.model, description) | checkpoint.constants
    if description.copy:
        tensors[description.copy] = tensors[f"{description.embed}.weight"]
    with new_folder(folder) as partial:
        (partial / CONFIG).write_text(checkpoint.config, encoding="utf-8")
        for name, content in beside.items():
            (partial / name).write_bytes(content)
        size, where = 0, {}
        for file, dtypes in files.items():
            content = {
                name: np.ascontiguousarray(tensors[name].astype(jnp.dtype(dtype)))
                for name, dtype in dtypes.items()
            }
            save_file(content, partial / file, metadata=checkpoint.metadata or None)
            size += sum(array.nbytes for array in content.values())
            where |= dict.fromkeys(content, file)
        if list(files) != [WEIGHTS]:
            index = {"metadata": {"total_size": size}, "weight_map": where}
            (partial / INDEX).write_text(json.dumps(index, indent=2))


def _open(folder: Path, stack: ExitStack):
    """(tensor -> open file, file -> tensor -> dtype, metadata, files that are not read)."""
    names, index, unread = weights(folder)
    where: dict[str, Any] = {}
    files: dict[str, dict[str, str]] = {}
    metadata: dict[str, str] = {}
    home: dict[str, str] = {}
    twice = []
    for file in names:
        path = folder / file
        try:
            opened = stack.enter_context(safe_open(path, framework="np"))
            dtypes = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged or cut off: {printable(error)}") from None
        twice += [f"{_shown(n)} in {home[n]} and {file}" for n in dtypes if n in home]
        files[file] = {name: _dtype(dtype, name) for name, dtype in dtypes.items()}
        where |= dict.fromkeys(dtypes, opened)
        home |= dict.fromkeys(dtypes, file)
        metadata |= opened.metadata() or {}
    if twice:
        raise ValueError(f"{len(twice)} tensors are in two files: {', '.join(twice)}")
    astray = [n for n, file in index.items() if home.get(n) != file]
    if astray:
        listed = ", ".join(f"{_shown(n)} in {index[n]}" for n in astray)
        raise ValueError(f"{INDEX} lists {len(astray)} tensors where they are not: {listed}")
    return where, files, metadata, unread


def _fit(description: Description, shapes: Mapping[str, tuple[int, ...]]):
    """(the model without numbers, its table, what differs in the tensors that are stored)."""
    with describing():
        model = skeleton(description)
    need = sum(math.prod(leaf.shape) for leaf in _leaves(model).values())
    have = sum(map(math.prod, shapes.values()))
    if need > 2 * have + 10_000_000:  # before anything of this size is looked at
        raise ValueError(f"the config is of a model of {need:,} numbers, and {have:,} are stored")
    table = list(rules(model, description.table()))
    known = {description.copy} if description.copy else set()
    found = {
        name: shape
        for name, shape in shapes.items()
        if name not in known and not name.startswith(description.beside)
    }
    return model, table, _differ(found, expected(model, table))


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


def _fill(model: Decoder, table: Iterable[Rule], where: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Put all numbers into the model; the tensors that follow from the config are returned."""
    constants: dict[str, np.ndarray] = {}
    bad = []
    for rule in table:
        arrays = [where[name].get_tensor(name) for name in rule.theirs]
        bad += [name for name, array in zip(rule.theirs, arrays) if not np.isfinite(array).all()]
        if rule.ours:
            whole = [n for n, a in zip(rule.theirs, arrays) if a.dtype.kind == "i"]
            if whole:
                raise ValueError(f"{whole[0]} is stored as whole numbers, which no weights are")
            put(model, rule, arrays)
        elif not bad:
            _check_constant(rule, arrays)
            constants |= dict(zip(rule.theirs, arrays))
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(where)} tensors have numbers that are NaN or infinite: "
            f"{', '.join(bad)}"
        )
    return constants


def _differ(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What is missing, unknown or of another shape; empty where nothing is."""
    missing = sorted(set(wanted) - set(found))
    other = sorted(set(found) - set(wanted))
    wrong = [n for n in sorted(wanted) if n in found and found[n] != wanted[n]]
    lines = []
    for what, names in (("missing", missing), ("unknown", other)):
        if names:
            lines.append(f"{len(names)} {what}: {', '.join(map(_shown, names))}")
    if wrong:
        shapes = (f"{n} is {list(found[n])}, expected {list(wanted[n])}" for n in wrong)
        lines.append(f"{len(wrong)} of another shape: {', '.join(shapes)}")
    return "; ".join(lines)


def _check_copy(where: Mapping[str, Any], name: str, source: str) -> None:
    """The head that is stored although it is the embedding has to have its numbers."""
    if not np.array_equal(where[name].get_tensor(name), where[source].get_tensor(source)):
        raise ValueError(
            f"{name} is stored with other numbers than {source}, but the config ties them: set "
            "tie_word_embeddings to false to use it"
        )


def _check_constant(rule: Rule, arrays: list[np.ndarray]) -> None:
    for name, found, value in zip(rule.theirs, arrays, rule.give([]), strict=True):
        if value.dtype.kind == "i":
            same = np.array_equal(found, value)
        else:
            same = np.allclose(found.astype(np.float64), value, rtol=1e-2, atol=1e-6)
        if not same:
            raise ValueError(f"{name} should follow from the config, and has other numbers")


def _shown(name: str) -> str:
    """The name of a tensor, on one line."""
    return printable(name, "")


def _dtype(name: str, tensor: str) -> str:
    if name not in DTYPES:
        raise ValueError(f"{_shown(tensor)} is stored as {name}; only {', '.join(DTYPES)} are read")
    return DTYPES[name]
