"""Own data: a task of arrays or lists.

    def mine() -> Task:
        return from_arrays(x, y)     # seqjax train FILE.py, with TaskConfig("mine")

The rows are parted, by a seed, into those trained on and those held out. An epoch shuffles the
former anew and has each of them once; batches go on over its end, so that all are full. Validation
reads the latter once; what fills up its last batch has no weight.

Baseline: the score on what is held out of the frequencies, or the mean, of what is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import islice
from typing import Any, cast

import jax
import numpy as np

from seqjax.answers import Answer, Input
from seqjax.data.pipeline import gathered, in_order
from seqjax.tasks.given import as_batch
from seqjax.tasks.task import Batch, DataIterator, Metrics, Task, without

FIELDS = ("x", "y", "lengths", "mask", "dt")  # of a set of rows


def from_arrays(
    x: Any,
    y: Any = None,
    *,
    lengths: Any = None,
    mask: Any = None,
    dt: Any = None,
    held_out: Any = 0.1,
    groups: Any = None,
    seed: int = 0,
    inputs: Input | None = None,
    outputs: Answer | None = None,
    name: str = "arrays",
) -> ArrayTask:
    """The task of answering y to x.

    x: integers [N, T] are tokens, floats [N, T] or [N, T, *shape] features, texts their bytes.
        Rows of different lengths are a list, or filled up and [N] `lengths`.
    y: integers [N] or [N, T] are classes, floats [N], [N, D] or [N, T, D] values. None: each step
        is answered by the next one of x, as in a language model.
    mask: [N] or [N, T], the weight of each target in loss and metrics.
    dt: [N, T], the time before each step, for layers that read it.
    held_out: what is validated on: a share of the rows, how many, an array of their indices, or
        other rows, as (x, y) or a dict of x, y, lengths, mask, dt.
    groups: [N], what each row is of (a person, a recording): none of them is on both sides.
    seed: of the rows that are held out.
    inputs, outputs: in place of what is inferred, as outputs=Bernoullis(88, per_step=True).
    Raises ValueError, of one line, for what does not go together.
    """
    given = dict(zip(FIELDS, (x, y, lengths, mask, dt)))
    others = dict(zip(FIELDS, held_out)) if isinstance(held_out, tuple) else held_out
    if isinstance(others, Mapping):
        known = len(others) == len(held_out) and not set(others) - set(FIELDS)
        if "x" not in others or not known or groups is not None:
            raise ValueError(
                f"held_out must be rows of {', '.join(FIELDS)}, without groups, "
                f"got {', '.join(map(str, others))}"
            )
        first = len(x)
        given = {field: _joined(given[field], others.get(field), field) for field in FIELDS}
        rows, spec = as_batch(**given, inputs=inputs, outputs=outputs)
        train, apart = np.split(np.arange(len(rows.x)), [first])
    else:
        rows, spec = as_batch(**given, inputs=inputs, outputs=outputs)
        train, apart = _parted(len(rows.x), held_out, groups, seed)
    for part, which in ((train, "trained on"), (apart, "held out")):
        if not len(part) or not rows.mask[part].any():
            raise ValueError(f"no row is {which}, or none with weight, of {len(rows.x)} rows and "
                             f"held_out={_short(held_out)}")  # fmt: skip

    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        """Training rows, drawn uniformly and with replacement."""
        _check_length(name, rows, length)
        return _take(rows, train[np.asarray(jax.random.randint(key, (batch,), 0, len(train)))])

    def baseline(length: int) -> Metrics:
        del length
        sides = ((rows.y[part], rows.mask[part]) for part in (train, apart))
        return spec.outputs.baseline(*sides)

    return ArrayTask(name, spec, sample, baseline, rows=rows, train=train, apart=apart)


@dataclass(frozen=True, eq=False, kw_only=True)
class ArrayTask(Task):
    """The task of `from_arrays`: all its rows, and which are on either side."""

    rows: Batch
    train: np.ndarray  # int [N]
    apart: np.ndarray  # int [M], those held out

    @property
    def decides(self) -> Mapping[str, Any]:
        return {"length": self.rows.x.shape[1], "evaluation_batches": None}

    @property
    def description(self) -> str:
        t, present = self.rows.x.shape[1], self.rows.present
        steps = t if present is None else f"{present.sum(1).min()} to {t}"
        return (
            f"{self.name}: {self.spec.inputs} in, {self.spec.outputs} out; {len(self.train)} rows "
            f"of {steps} steps to train on, {len(self.apart)} held out"
        )

    def __repr__(self) -> str:
        return f"<{self.description}>"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the rows and of which are held out."""
        digest = sha256()
        for part in (*self.rows, self.train, self.apart):
            if part is not None:
                digest.update(f"{part.shape} {part.dtype};".encode())
                digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def batches(self, seed: int, batch: int, length: int) -> DataIterator:
        """Endless training batches; the seed shuffles the rows of each epoch."""
        _check_length(self.name, self.rows, length)

        def gather(places: np.ndarray) -> Batch:
            return _take(self.rows, self.train[places])

        return cast(DataIterator, gathered(len(self.train), gather, seed=seed, batch=batch))

    def validation(self, batch: int, length: int, count: int | None = None) -> Iterator[Batch]:
        """The rows held out, once and in order; at most `count` batches."""
        _check_length(self.name, self.rows, length)
        batches = (
            without(_take(self.rows, self.apart[places]), beyond)
            for places, beyond in in_order(len(self.apart), batch)
        )
        return islice(batches, count)


def _take(rows: Batch, places: np.ndarray) -> Batch:
    return Batch(*(None if part is None else part[places] for part in rows))


def _check_length(name: str, rows: Batch, length: int) -> None:
    if length != rows.x.shape[1]:
        raise ValueError(f"the rows of {name} have {rows.x.shape[1]} steps, got length {length}")


def _joined(first: Any, second: Any, field: str) -> Any:
    """Two sets of rows as one, which may differ in their steps."""
    if (first is None) != (second is None):
        raise ValueError(f"{field} must be given for both sets of rows, or for none")
    if first is None:
        return None
    if not (hasattr(first, "__len__") and hasattr(second, "__len__")):
        raise ValueError(f"{field} must be an array or a list in both sets of rows")
    shapes = {np.shape(one)[1:] for one in (first, second) if not isinstance(one, list | tuple)}
    if len(shapes) == 1 and not isinstance(first, list | tuple):
        return np.concatenate([np.asarray(first), np.asarray(second)])
    return [*first, *second]


def _parted(n: int, held_out: Any, groups: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the rows that are trained on, and of those that are held out, in order."""
    apart = np.zeros(n, bool)
    if isinstance(held_out, np.ndarray | list):
        places = np.asarray(held_out)
        right = places.shape == (n,) if places.dtype == bool else places.ndim == 1
        if groups is not None or not right or places.dtype.kind not in "biu":
            raise ValueError(f"held_out must be indices of rows, without groups, "
                             f"got {places.dtype} {list(places.shape)}")  # fmt: skip
        if places.dtype != bool and len(places) and not 0 <= places.min() <= places.max() < n:
            raise ValueError(f"held_out must be indices from 0 to {n - 1}, got {_short(held_out)}")
        apart[places] = True
    else:
        whole = isinstance(held_out, int | np.integer) and not isinstance(held_out, bool)
        rows = whole and 0 < held_out < n
        share = isinstance(held_out, float | np.floating) and 0 < held_out < 1
        if not share and not rows:
            raise ValueError(f"held_out must be a share above 0 and below 1, or a number of rows "
                             f"from 1 to {n - 1}, got {held_out!r:.60}")  # fmt: skip
        wanted = max(1, round(float(held_out) * n)) if share else int(held_out)
        kinds = np.arange(n) if groups is None else np.asarray(groups)
        if kinds.shape != (n,):
            raise ValueError(f"groups must be one for each of {n} rows, got {list(kinds.shape)}")
        sizes = np.unique(kinds, return_inverse=True, return_counts=True)
        # RandomState draws the same numbers in every version of numpy
        order = np.random.RandomState(seed).permutation(len(sizes[2]))
        taken = 1 + np.searchsorted(sizes[2][order].cumsum(), wanted)
        apart = np.isin(sizes[1], order[:taken])
    return np.flatnonzero(~apart), np.flatnonzero(apart)


def _short(held_out: Any) -> str:
    plain = isinstance(held_out, int | float | np.number)
    return repr(held_out) if plain else type(held_out).__name__
