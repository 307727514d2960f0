"""A task of examples that are read one by one: `seqjax.data` has them.

    def mine() -> Task:
        data = prepared("mnist")
        return from_records("mine", spec, data, encode, parts={"train": "train", ...})

An epoch shuffles the examples anew and has each of them once; batches go on over its end, so that
all are full. Validation reads what is held out once; what fills up its last batch has no weight.
Examples that are shorter than the batch are filled up: there `present` is False and the mask 0.

Baseline: the score on what is held out of the frequencies, or the mean, of what is trained on, of
the first 2,000 examples of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, starmap
from typing import Any, cast

import jax
import numpy as np

from seqjax.core.common import unknown
from seqjax.data.pipeline import in_order, rows
from seqjax.data.records import Prepared
from seqjax.tasks.task import Batch, DataIterator, Metrics, Spec, Task, without

Encoded = Mapping[str, Any]  # of one example, without the axis of the batch
COUNTED = 2000  # examples that the baseline counts


def from_records(
    name: str,
    spec: Spec,
    data: Prepared,
    encode: Callable[[Any, int], Encoded],
    *,
    parts: Mapping[str, str],
    steps: int,
    whole: int | None = None,
    cut: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
    held_out: str = "validation",
    ragged: bool = False,
    collate: Callable[[list[Encoded], int], Batch] | None = None,
    workers: int = 0,
    tokens: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> RecordTask:
    """The task of answering the y of each example to its x.

    encode: of an example and the length of the batch to x and y, and where there are some dt
        [T] and mask ([T], or one number), as `Batch` has them. Pure: it runs in the workers.
    parts: splits of the data, or slices of them, by what they are for: "train", and those that
        `held_out` may name.
    steps: of the longest example that is trained on; the default length of batches.
    whole: of the longest one held out, where they differ.
    cut: from the training examples to the pieces of them that are trained on.
    held_out: the part that is validated on.
    ragged: examples differ in their steps, or batches in their length.
    collate: in place of `padded`, for inputs that are no array.
    workers: processes that read ahead.
    tokens, classes: their names, as `Task` has them.
    Raises ValueError.
    """
    if held_out not in parts or held_out == "train":
        raise ValueError(unknown("held_out", held_out, [part for part in parts if part != "train"]))
    train, apart = (data.source(parts[part]) for part in ("train", held_out))
    train = cut(train) if cut else train
    gather = collate or (lambda encoded, length: padded(encoded, length, spec, ragged))

    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        """Training examples, drawn uniformly and with replacement."""
        places = np.asarray(jax.random.randint(key, (batch,), 0, len(train)))
        return gather([encode(train[int(place)], length) for place in places], length)

    @lru_cache(maxsize=1)
    def baseline(length: int) -> Metrics:
        sides = []
        for source in (train, apart):
            found = [encode(source[i], length) for i in range(min(len(source), COUNTED))]
            batch = gather(found, max(length, whole or 0))
            sides.append((np.asarray(batch.y), np.asarray(batch.mask)))
        return spec.outputs.baseline(*sides)

    return RecordTask(
        name, spec, sample, baseline, data=data, train=train, apart=apart, encode=encode,
        gather=gather, steps=steps, whole=whole or steps, ragged=ragged, workers=workers,
        tokens=tokens, classes=classes,
    )  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordTask(Task):
    """The task of `from_records`."""

    data: Prepared
    train: Sequence[Any]
    apart: Sequence[Any]  # those held out
    encode: Callable[[Any, int], Encoded]
    gather: Callable[[list[Encoded], int], Batch]
    steps: int
    whole: int
    ragged: bool
    workers: int

    @property
    def decides(self) -> Mapping[str, Any]:
        longer = {"evaluation_length": self.whole} if self.whole != self.steps else {}
        return {"length": self.steps, "evaluation_batches": None, **longer}

    @property
    def description(self) -> str:
        return (
            f"{self.name}, {self.data.dataset.title} ({self.data.layout}): {self.spec.inputs} in, "
            f"{self.spec.outputs} out; {len(self.train)} examples of "
            f"{'up to ' * self.ragged}{self.steps} steps to train on, {len(self.apart)} held out"
        )

    def __repr__(self) -> str:
        return f"<{self.description}>"

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint

    def batches(self, seed: int, batch: int, length: int) -> DataIterator:
        """Endless training batches; the seed shuffles the examples of each epoch."""
        return self.rows(seed, batch, length, range(batch))

    def rows(self, seed: int, batch: int, length: int, part: range) -> DataIterator:
        """Only these rows are read."""
        encode, gather = self.encode, self.gather  # all that the workers need
        encode(self.train[0], length)  # a wrong length is answered here, before anything runs
        iterator = rows(
            self.train,
            lambda example: encode(example, length),
            lambda encoded: gather(encoded, length),
            seed=seed, batch=batch, part=part, workers=self.workers,
        )  # fmt: skip
        return cast(DataIterator, iterator)

    def validation(self, batch: int, length: int, count: int | None = None) -> Iterator[Batch]:
        """What is held out, once and in order; at most `count` batches."""

        def batch_of(places: np.ndarray, beyond: np.ndarray) -> Batch:
            encoded = [self.encode(self.apart[int(place)], length) for place in places]
            return without(self.gather(encoded, length), beyond)

        return islice(starmap(batch_of, in_order(len(self.apart), batch)), count)


def padded(encoded: list[Encoded], length: int, spec: Spec, ragged: bool) -> Batch:
    """A batch of examples, filled up with zeros to `length` steps. Raises ValueError."""
    steps = np.array([len(one["x"]) for one in encoded])
    if steps.max() > length or not (ragged or (steps == length).all()):
        raise ValueError(f"an example has {steps.max()} steps, got length {length}")
    per_step, present = spec.outputs.per_step, np.arange(length) < steps[:, None]

    def fill(name: str, dtype: Any) -> np.ndarray:
        first = np.asarray(encoded[0][name])
        out = np.zeros((len(encoded), length, *first.shape[1:]), dtype)
        for row, one in zip(out, encoded):
            row[: len(one[name])] = one[name]
        return out

    y_dtype = spec.outputs.dtype
    if per_step:
        y = fill("y", y_dtype)
        mask = fill("mask", np.float32) if "mask" in encoded[0] else present.astype(np.float32)
    else:
        y = np.stack([np.asarray(one["y"], y_dtype) for one in encoded])
        mask = np.array([one.get("mask", 1) for one in encoded], np.float32)
    return Batch(
        fill("x", spec.inputs.dtype), y, mask, present=present if ragged else None,
        dt=fill("dt", np.float32) if spec.timed else None,
    )  # fmt: skip


def moments(
    source: Sequence[Any], rows: Callable[[Any], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [D] of the rows [n, D] of the first 2,000 examples.

    NaNs do not count; a column that does not vary has the deviation 1, one of NaNs the mean 0.
    """
    found = np.concatenate([rows(source[i]) for i in range(min(len(source), COUNTED))])
    there = ~np.isnan(found)
    count = np.maximum(there.sum(0), 1)
    mean = np.where(there, found, 0).sum(0, dtype=np.float64) / count
    variance = (np.where(there, found - mean, 0) ** 2).sum(0, dtype=np.float64) / count
    return mean, np.where(variance > 0, np.sqrt(variance), 1)
