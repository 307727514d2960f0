"""Vital signs (arXiv:2006.10996; Pimentel et al. 2016): rates of breath and heart, and oxygen.

    input    x_t in R^2, the light that comes through a finger (PPG) and an electrocardiogram, as
             published                                             T = 4000, 32 s at 125 Hz
    target   breaths or beats a minute, or per cent of oxygen      one number per sequence

vital="RR", "HR" and "SpO2" are the archive's sets BIDMC32RR, BIDMC32HR, BIDMC32SpO2.  Targets are
less the mean and over the standard deviation of those trained on; rmse is in their own unit.
Validation is on a seventh of the training series, held_out="test" on the archive's test series.

Baseline: the mean.
Test rmse in the literature, for RR, HR and SpO2 (by other parts of the 7,949 series): S4 0.247,
0.332 and 0.090 (2206.11893).
"""

from typing import Annotated, Any, Literal

import numpy as np

from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.tasks.records import Encoded, RecordTask, from_records, moments
from seqjax.tasks.signals.uea import whole_series
from seqjax.tasks.task import Features, Spec, Values


def bidmc(
    *,
    vital: Literal["RR", "HR", "SpO2"] = "RR",
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """A vital sign of half a minute of two signals.

    workers: processes that read the series ahead.
    """
    data = prepared(f"uea_bidmc32{vital.lower()}")
    parts = {"train": "train[:86%]", "validation": "train[86%:]", "test": "test"}
    train = data.source(parts["train"])
    mean, deviation = moments(train, lambda one: np.reshape(one["target"], (1, 1)))
    first, other = train[0], data.source(held_out.replace("validation", "train"))[0]

    def encode(example: Any, length: int) -> Encoded:
        return {"x": whole_series(example), "y": (example["target"] - mean) / deviation}

    spec = Spec(
        Features(int(first["channels"])),
        Values(1, per_step=False, deviation=float(deviation[0])),
    )
    return from_records(
        "bidmc", spec, data, encode, parts=parts, held_out=held_out,
        steps=max(int(one["longest"]) for one in (first, other)), workers=workers,
    )  # fmt: skip
