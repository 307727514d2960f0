"""Sepsis in intensive care (PhysioNet 2019; as one answer per stay arXiv:2005.08926).

    input    x_t: 34 measurements, 5 numbers of the patient, and with intensity=True which of the
             34 were taken in this hour; dt_t, the hours since the step before
    target   whether the stay has sepsis, in its first 72 hours or later       one class per stay

A step is an hour of the first 72 in which anything was measured: stays differ in their steps, and
steps in the time between them (1 at the first), which is beside the input for layers that read it;
with times="input" it is one more number of x, for all others.
Numbers are less the mean and over the standard deviation of those of the first 2,000 patients
trained on. What was not measured is the last value that was, and 0 before the first.

The challenge has no public test part: 70, 15 and 15 per cent of the patients of both hospitals,
always the same ones, are those of training, validation and held_out="test".

Baseline: the frequencies of the classes, accuracy about 0.93; auroc is what papers state, 0.5 by
chance.
In the literature: neural CDE 0.880 with intensity and 0.776 without (2005.08926).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np

from seqjax.answers import Detection
from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.data.sets.physionet import MEASURED, STATIC
from seqjax.tasks.records import Encoded, RecordTask, from_records, moments
from seqjax.tasks.task import Features, Spec

HOURS = 72


def physionet(
    *,
    intensity: bool = True,
    times: Literal["beside", "input"] = "beside",
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """Whether a patient gets sepsis.

    intensity: what was measured when goes in ("observational intensity").
    times: where the hours since the step before go in.
    workers: processes that read the stays ahead.
    """
    data = prepared("physionet_sepsis")
    parts = {"train": "patients[:70%]", "validation": "patients[70%:85%]",
             "test": "patients[85%:]"}  # fmt: skip
    train = data.source(parts["train"])
    mean, deviation = moments(train, lambda one: first_hours(one)[0])
    typical, spread = moments(train, lambda one: one["static"][None])

    def encode(example: Any, length: int) -> Encoded:
        values, hours = first_hours(example)
        taken = ~np.isnan(values)
        filled = carried((values - mean) / deviation)
        static = np.nan_to_num((example["static"] - typical) / spread)
        beside = np.broadcast_to(static, (len(hours), len(static)))
        dt = np.diff(hours, prepend=hours[0] - 1)
        x = [filled, beside, *([taken] if intensity else []), *([] if timed else [dt[:, None]])]
        return {"x": np.concatenate(x, axis=1), "y": int(example["sepsis"].any()), "dt": dt}

    timed = times == "beside"
    width = len(MEASURED) * (2 if intensity else 1) + len(STATIC) + (not timed)
    spec = Spec(Features(width), Detection(per_step=False), timed)
    return from_records(
        "physionet", spec, data, encode, parts=parts, held_out=held_out, steps=HOURS, ragged=True,
        workers=workers, classes=("none", "sepsis"),
    )  # fmt: skip


def first_hours(example: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Values [T, 34] and hours [T] of the steps of a stay, at least its first hour."""
    values, hours = example["values"].reshape(-1, len(MEASURED)), example["hours"]
    kept = ~np.isnan(values).all(axis=1) & (hours <= HOURS)
    kept[0] |= not kept.any()
    return values[kept], hours[kept]


def carried(values: np.ndarray) -> np.ndarray:
    """The last number that is not NaN of each column, up to each row; 0 where there is none."""
    rows = np.where(np.isnan(values), -1, np.arange(len(values))[:, None])
    last = np.maximum.accumulate(rows, axis=0)
    return np.where(last < 0, 0, np.take_along_axis(values, np.maximum(last, 0), axis=0))
