"""Classification of time series: the archives of UEA (arXiv:1811.00075) and UCR (1810.07758).

    input    x_t in R^D, as published: neither centred nor scaled here
    target   the class                                        one per sequence

dataset="JapaneseVowels", "GunPoint" and so on: any set whose files are there (`seqjax data` lists
some). Series of a set may differ in their steps. Where a number is missing it is drawn linearly
between those beside it, as the archives advise, and at either end it is the nearest one.

Validation is on a fifth of the training series; with held_out="test" all of them are trained on, as
published, and the test series are held out.

Baseline: the frequencies of the classes.
Test accuracy in the literature, of one nearest neighbour by dependent dynamic time warping
(1811.00075): JapaneseVowels 0.949, BasicMotions 0.975, EigenWorms 0.618.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np

from seqjax.core.ranges import Range
from seqjax.data import prepare
from seqjax.data.sets.uea import VITAL, archived
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Classes, Features, Spec


def whole_series(example: Mapping[str, Any]) -> np.ndarray:
    """The series [T, D] of an example, without gaps; a channel that has nothing is 0."""
    x = example["values"].reshape(-1, int(example["channels"]))
    gaps = np.isnan(x)
    if not gaps.any():
        return x
    x, steps = x.copy(), np.arange(len(x))
    for column, gap in zip(x.T, gaps.T):
        column[gap] = 0 if gap.all() else np.interp(steps[gap], steps[~gap], column[~gap])
    return x


def uea(
    *,
    dataset: str = "JapaneseVowels",
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The class of a series of the set `dataset`.

    workers: processes that read the series ahead.
    """
    if dataset in VITAL:
        raise ValueError(f"the targets of {dataset} are numbers, and no classes: task bidmc")
    data = prepare(archived(dataset))
    train, test = (data.source(split)[0] for split in ("train", "test"))
    channels, classes = (int(train[name]) for name in ("channels", "classes"))
    steps = max(int(one["longest"]) for one in (train, test))
    ragged = any(int(one["shortest"]) < steps for one in (train, test))

    def encode(example: Any, length: int) -> Encoded:
        return {"x": whole_series(example), "y": example["label"]}

    parts = {"train": "train[:80%]", "validation": "train[80%:]"}
    spec = Spec(Features(channels), Classes(classes, per_step=False))
    return from_records(
        "uea", spec, data, encode,
        parts={"train": "train", "test": "test"} if held_out == "test" else parts,
        held_out=held_out, steps=steps, ragged=ragged, workers=workers,
    )  # fmt: skip
