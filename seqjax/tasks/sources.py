"""Own data that are no arrays: rows of a data set, and iterators of batches.

from_source(datasets.load_dataset("imdb")["train"], x="text", y="label")    Hugging Face
from_source(tfds.data_source("mnist")["train"], x="image", y="label", encode=pixels)
from_batches(make, validation, inputs=Tokens(256))        make(epoch) -> batches of numpy
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from seqjax.answers import Answer, Classes, Input
from seqjax.core.common import Notice, unknown
from seqjax.tasks.arrays import FIELDS, ArrayTask, from_arrays
from seqjax.tasks.given import as_batch, in_steps
from seqjax.tasks.task import Batch, DataIterator, Spec, Task

Batches = Callable[[int], Iterable[Any]] | Iterable[Any]


def from_source(
    source: Any,
    x: Any,
    y: Any = None,
    *,
    encode: Callable[[Any], Any] | None = None,
    held_out: Any = 0.1,
    groups: Any = None,
    outputs: Answer | None = None,
    name: str = "source",
    **options: Any,
) -> ArrayTask:
    """`from_arrays` of a source of rows, read once into memory.

    source: has a length, and a dict or a tuple at each index: a data set of Hugging Face, a
        `tfds.data_source`, a source of grain, a list.
    x, y, groups: names in a row, or places in a tuple.
    encode: from x of a row to its sequence: a tokenizer, frames of an image; texts are bytes
        without it.
    held_out: as there, or a second source.
    options: those of `from_arrays`.
    Raises ValueError as there, and for names that the rows do not have.
    """
    columns = _columns(source, {"x": x, "y": y, "groups": groups}, encode)
    indices = (
        isinstance(held_out, np.ndarray)
        or isinstance(held_out, list)
        and not any(isinstance(row, Mapping | tuple) for row in held_out)
    )
    if not indices and not isinstance(held_out, int | float | np.number | tuple):
        held_out = _columns(held_out, {"x": x, "y": y}, encode)
    if outputs is None and (count := _class_count(source, y)) is not None:
        outputs = Classes(count, per_step=False)
    return from_arrays(**columns, held_out=held_out, outputs=outputs, name=name, **options)


def _columns(source: Any, names: Mapping[str, Any], encode: Any) -> dict[str, list[Any]]:
    """Of the rows of a source, what goes by these names."""
    if isinstance(source, Mapping):
        raise ValueError(f"source must be one of its splits, {', '.join(map(str, source))}")
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise ValueError(
            f"source must have a length and rows by index, got {type(source).__name__}: "
            "from_batches takes what can only be iterated over"
        )
    columns: dict[str, list[Any]] = {field: [] for field, n in names.items() if n is not None}
    for row in (
        source if hasattr(source, "__iter__") else map(source.__getitem__, range(len(source)))
    ):
        for field, column in columns.items():
            try:
                column.append(row[names[field]])
            except (KeyError, IndexError, TypeError):
                places = range(len(row)) if hasattr(row, "__len__") else ()
                known = map(str, row if isinstance(row, Mapping) else places)
                raise ValueError(unknown(f"{field} of a row", names[field], known)) from None
    if encode is not None:
        columns["x"] = list(map(encode, columns["x"]))
    return columns


def _class_count(source: Any, name: Any) -> int | None:
    """How many classes a data set declares, of which its rows need not show all."""
    info = getattr(source, "dataset_info", source)  # tfds has it, Hugging Face has not
    features: Any = getattr(info, "features", None) or {}
    return getattr(features[name], "num_classes", None) if name in features else None


def from_batches(
    make: Batches,
    validation: Batches,
    *,
    inputs: Input | None = None,
    outputs: Answer | None = None,
    name: str = "batches",
) -> BatchTask:
    """The task of batches that come from elsewhere, all of one size but for the last of an epoch.

    make: make(epoch) iterates over the batches of epoch 0, 1, ...; or what can be iterated over
        again and again, such as a list or a loader. A batch is (x, y), a dict of x, y, lengths,
        mask, dt as in `from_arrays`, or a `Batch`.
    validation: the same, of what is validated on; make(0) is.
    inputs, outputs: needed for tokens and classes, of which one batch need not show all.
    A run goes on where it stopped: by get_state and set_state, where the iterator has them as
    those of grain, else by going over the batches before, with a notice.
    Raises ValueError for iterators that can be used once, and for batches that differ in size.
    """
    for role, one in (("make", make), ("validation", validation)):
        if not callable(one) and (not isinstance(one, Iterable) or iter(one) is one):
            raise ValueError(
                f"{role} must be a function of the epoch that makes an iterator, or a list or a "
                f"loader, got {type(one).__name__}, which has each batch once"
            )
    first = next(iter(_begun(make, 0)), None)
    if first is None:
        raise ValueError("make must have batches, got none")
    batch, spec = _converted(first, inputs, outputs)
    for given, kind, role in ((inputs, spec.inputs, "inputs"), (outputs, spec.outputs, "outputs")):
        if given is None and kind.bound is not None and not (spec.generates and inputs):
            raise ValueError(f"{role} must be given, as {kind}: one batch need not show them all")

    def sample(key: Any, batch: int, length: int) -> Batch:
        raise ValueError(f"{name} comes in batches, none of which can be drawn by a key")

    return BatchTask(name, spec, sample, lambda length: {}, make=make, held_out=validation,
                     size=batch.x.shape[:2])  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchTask(Task):
    """The task of `from_batches`."""

    make: Batches
    held_out: Batches
    size: tuple[int, int]  # B, T

    @property
    def decides(self) -> Mapping[str, Any]:
        whole = {"evaluation_batches": None} if hasattr(self.held_out, "__len__") else {}
        return {"batch": self.size[0], "length": self.size[1], **whole}

    @property
    def description(self) -> str:
        return (
            f"{self.name}: {self.spec.inputs} in, {self.spec.outputs} out; batches of "
            f"{self.size[0]} x {self.size[1]} steps"
        )

    def batches(self, seed: int, batch: int, length: int) -> DataIterator:
        """The batches of one epoch after the other; their order is not the seed's."""
        self._check_size(batch, length)
        return Epochs(self)

    def validation(self, batch: int, length: int, count: int | None = None) -> Iterator[Batch]:
        self._check_size(batch, length)
        return islice(map(self.converted, _begun(self.held_out, 0)), count)

    def converted(self, given: Any) -> Batch:
        """As all are: filled up with rows that have no weight."""
        batch, _ = _converted(given, self.spec.inputs, self.spec.outputs)
        rows, steps = batch.x.shape[:2]
        missing = self.size[0] - rows
        if missing < 0 or steps != self.size[1]:
            raise ValueError(
                f"batches of {self.name} must be of {self.size[0]} x {self.size[1]} steps as the "
                f"first one, got {rows} x {steps}"
            )
        if not missing:
            return batch
        places = np.minimum(np.arange(self.size[0]), rows - 1)
        batch = Batch(*(None if part is None else np.asarray(part)[places] for part in batch))
        batch.mask[rows:] = 0
        return batch

    def _check_size(self, batch: int, length: int) -> None:
        if (batch, length) != self.size:
            raise ValueError(
                f"the batches of {self.name} are of {self.size[0]} x {self.size[1]} steps, "
                f"got batch {batch} and length {length}"
            )


class Epochs:
    """`DataIterator` over the batches of a `BatchTask`."""

    def __init__(self, task: BatchTask):
        self.task, self.epoch, self.index = task, 0, 0
        self.iterator = iter(_begun(task.make, 0))

    def __iter__(self) -> Epochs:
        return self

    def __next__(self) -> Batch:
        for given in self.iterator:
            self.index += 1
            return self.task.converted(given)
        if not self.index:
            raise ValueError(f"epoch {self.epoch} of {self.task.name} has no batches")
        self._go_to(self.epoch + 1)
        return next(self)

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"epoch": self.epoch, "index": self.index}
        return state | ({"inner": self.iterator.get_state()} if self._saves() else {})

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._go_to(int(state["epoch"]))
        self.index = int(state["index"])
        if "inner" in state and self._saves():
            self.iterator.set_state(state["inner"])
        elif self.index:
            text = f"{self.task.name} cannot be set to a batch: going over {self.index} of them"
            warnings.warn(text, Notice, stacklevel=2)
            over = sum(1 for _ in islice(self.iterator, self.index))
            if over < self.index:
                raise ValueError(
                    f"epoch {self.epoch} of {self.task.name} ends after {over} batches, and the "
                    f"run stopped after {self.index}: it is not what it was"
                )

    def _go_to(self, epoch: int) -> None:
        self.epoch, self.index = epoch, 0
        self.iterator: Any = iter(_begun(self.task.make, epoch))

    def _saves(self) -> bool:
        return hasattr(self.iterator, "get_state") and hasattr(self.iterator, "set_state")


def _begun(make: Batches, epoch: int) -> Iterable[Any]:
    return make(epoch) if callable(make) else make


def _converted(given: Any, inputs: Input | None, outputs: Answer | None) -> tuple[Batch, Spec]:
    """A batch as someone gives it."""
    if isinstance(given, Batch):
        if inputs is None or outputs is None or not in_steps(inputs):
            raise ValueError("of a Batch inputs, those of steps, and outputs must be given")
        inputs.check(given.x)
        return given, Spec(inputs, outputs, given.dt is not None)
    if isinstance(given, tuple | list):
        given = dict(zip(("x", "y", "mask"), given))
    if not isinstance(given, Mapping) or "x" not in given or set(given) - set(FIELDS):
        what = list(given) if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(f"a batch must be (x, y) or a dict of {', '.join(FIELDS)}, got {what}")
    return as_batch(**given, inputs=inputs, outputs=outputs)
