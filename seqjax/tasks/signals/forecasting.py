"""Long-horizon forecasting (Informer, arXiv:2012.07436): a window of a series in, what follows out.

A window has T = L + H steps: L that are seen and H = `horizon` that are to come, which go in as
zeros, placeholders as in Informer's decoder, and are answered all at once, none from another:

    x_t = (v_t, 0)  for t <= L,  (0, 1) after         D + 1 numbers
    y_t = v_t       for t > L, where alone the mask is 1

of the D numbers v_t of the series, less the mean and over the standard deviation of the training
part; from_last=True, as NLinear of arXiv:2205.13504, less the last one seen, v_L, which changes no
error. calendar=True puts minute, hour, day of the week, of the month and of the year beside them,
each from -1/2 to 1/2.  L is what the length of a batch leaves, by default 96 (illness: 36).

Parts are those of the papers: of ETT 12, 4 and 4 months of 30 days, of others 7 : 1 : 2; windows
held out look back into the part before.  mse and mae are means over the H D numbers of a window and
over all windows.  answer="quantiles" are those at 0.1 .. 0.9, with crps; "gaussian" and "student_t"
the parameters of a distribution of each number, with its log likelihood.

stepwise=True, as DeepAR (arXiv:1704.04110), answers every step by a distribution, from the one
before, in units of the scale nu of a window, 1 + the mean of |v| over the L steps that are seen:

    x_t = (v_{t-1} / nu, log nu, and the calendar of t)       y_t = (v_t, nu)       v_0 = 0

What is to come is then drawn step by step (`seqjax.train.forecast`), and `seqjax eval` prints how
the windows held out lie in such paths.

Baseline: the last value seen, for all of the horizon, or the mean, whichever has the lesser error;
as the mean of Gaussians of one deviation, that of its errors, where a distribution is answered;
stepwise the value before each step.
Length generalisation: a longer look-back, evaluation_length.
mse on the test part, L = 336 and H = 96, of DLinear (arXiv:2205.13504): etth1 0.375, etth2 0.289,
ettm1 0.299, exchange 0.081; of the last value 1.295, 0.432, 1.214, 0.081.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import log, pi
from typing import Annotated, Any, Literal, cast

import jax
import numpy as np

from seqjax.answers import Gaussian, Quantiles, StudentT
from seqjax.core.ranges import Range
from seqjax.data import Prepared, prepared
from seqjax.data.pipeline import gathered, in_order
from seqjax.tasks.task import (
    Batch,
    DataIterator,
    Features,
    Metrics,
    Spec,
    Task,
    Values,
    without,
)

DISTRIBUTIONS = {"gaussian": Gaussian, "student_t": StudentT}
LEVELS = tuple(round(0.1 * n, 1) for n in range(1, 10))
MONTH = 30 * 24  # hours
DAY, EPOCH_WEEKDAY = 24 * 60, 3  # minutes; 1970 began on a Thursday

Name = Literal["etth1", "etth2", "ettm1", "ettm2", "exchange", "electricity", "traffic", "weather",
               "illness"]  # fmt: skip


def forecasting(
    *,
    dataset: Name = "etth1",
    horizon: Annotated[int, Range(1)] = 96,
    univariate: bool = False,
    from_last: bool = False,
    calendar: bool = False,
    stepwise: bool = False,
    answer: Literal["values", "quantiles", "gaussian", "student_t"] = "values",
    held_out: Literal["validation", "test"] = "validation",
) -> Forecasting:
    """The next `horizon` rows of a series.

    univariate: the last number of each row alone, the target "OT" of the papers.
    from_last: rows are what they differ by from the last one seen.
    calendar: the time of each row goes in, that of the horizon too.
    stepwise: each row from the one before, with a gaussian or student_t answer.
    """
    if stepwise and (from_last or answer not in DISTRIBUTIONS):
        raise ValueError(
            "stepwise goes with answer=gaussian or student_t and without from_last, "
            f"got {answer=} and {from_last=}"
        )
    data = prepared(dataset)
    (example,) = data.source("series")
    values = example["values"].reshape(-1, int(example["channels"])).astype(np.float64)
    values = values[:, -1:] if univariate else values
    minutes = example["minutes"]
    if calendar and not len(minutes):
        raise ValueError(f"calendar needs dates, which these files of {dataset} do not have")
    parts = parts_of(dataset, len(values))
    train = values[slice(*parts["train"])]
    scaled = (values - train.mean(0)) / np.where(train.std(0) > 0, train.std(0), 1)
    width = values.shape[1]
    if answer in DISTRIBUTIONS:
        outputs = DISTRIBUTIONS[answer](width, per_step=True, scaled=stepwise)
    elif answer == "values":
        outputs = Values(width, per_step=True)
    else:
        outputs = Quantiles(LEVELS, per_step=True, dimension=width)
    beside = time_features(minutes) if calendar else np.zeros((len(values), 0))
    spec = Spec(Features(width + 1 + beside.shape[1]), outputs)

    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        """Training windows, drawn uniformly and with replacement."""
        starts = task.starts("train", length)
        return task.windows(np.asarray(jax.random.choice(key, starts, (batch,))), length)

    def baseline(length: int) -> Metrics:
        return min(task.naive(length).values(), key=lambda one: one["loss"])

    task = Forecasting(
        "forecasting", spec, sample, baseline, data=data, values=scaled.astype(np.float32),
        beside=beside.astype(np.float32), parts=parts, horizon=horizon,
        from_last=from_last, stepwise=stepwise, answer=answer, held_out=held_out,
    )  # fmt: skip
    return task


def parts_of(dataset: str, rows: int) -> dict[str, tuple[int, int]]:
    """The first row of each part and the row after its last."""
    if dataset.startswith("ett"):
        month = MONTH * (4 if dataset.startswith("ettm") else 1)
        first, second, last = 12 * month, 16 * month, 20 * month
    else:
        first, last = int(rows * 0.7), rows
        second = rows - int(rows * 0.2)
    return {"train": (0, first), "validation": (first, second), "test": (second, last)}


def time_features(minutes: np.ndarray) -> np.ndarray:
    """Minute, hour, day of the week, of the month and of the year [N, 5], from -1/2 to 1/2."""
    days = minutes // DAY
    dates = days.astype("datetime64[D]")
    month, year = (dates - dates.astype(f"datetime64[{unit}]") for unit in "MY")
    columns = ((minutes % 60, 59), (minutes // 60 % 24, 23), ((days + EPOCH_WEEKDAY) % 7, 6),
               (month.astype(np.int64), 30), (year.astype(np.int64), 365))  # fmt: skip
    return np.stack([column / most - 0.5 for column, most in columns], axis=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Forecasting(Task):
    """The task of `forecasting`."""

    data: Prepared
    values: np.ndarray  # [N, D], scaled
    beside: np.ndarray  # [N, 0] or [N, 5]
    parts: Mapping[str, tuple[int, int]]
    horizon: int
    from_last: bool
    stepwise: bool
    answer: str
    held_out: str

    @property
    def decides(self) -> Mapping[str, Any]:
        seen = 36 if self.data.dataset.name == "illness" else 96
        return {"length": seen + self.horizon, "evaluation_batches": None}

    @property
    def description(self) -> str:
        (first, last), (start, end) = self.parts["train"], self.parts[self.held_out]
        return (
            f"{self.name}, {self.data.dataset.title}: {self.values.shape[1]} numbers a step, a "
            f"horizon of {self.horizon} steps; {last - first} steps to train on, {end - start} "
            "held out"
        )

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint

    def starts(self, part: str, length: int) -> np.ndarray:
        """The first steps of all windows of `length` steps whose horizon is in `part`."""
        first, last = self.parts[part]
        low = first if part == "train" else first - (length - self.horizon)
        if length <= self.horizon or low < 0 or last - length < low:
            raise ValueError(
                f"a window has more than the {self.horizon} steps of its horizon, and the {part} "
                f"part {last - first} steps: got length {length}"
            )
        return np.arange(low, last - length + 1)

    def windows(self, starts: np.ndarray, length: int) -> Batch:
        at = starts[:, None] + np.arange(length)
        y, seen = self.values[at], length - self.horizon
        if self.stepwise:
            nu = 1 + np.abs(y[:, :seen]).mean((1, 2), keepdims=True)
            nu = np.broadcast_to(nu, (*at.shape, 1)).astype(np.float32)
            before = np.pad(y[:, :-1] / nu[:, 1:], ((0, 0), (1, 0), (0, 0)))
            x = np.concatenate([before, np.log(nu), self.beside[at]], axis=-1)
            return Batch(x, np.concatenate([y, nu], axis=-1), np.ones(at.shape, np.float32))
        y = y - y[:, seen - 1 : seen] if self.from_last else y
        x = np.concatenate([y, np.zeros((*at.shape, 1), np.float32), self.beside[at]], axis=-1)
        width = y.shape[-1]
        x[:, seen:, :width], x[:, seen:, width] = 0, 1
        mask = np.zeros(at.shape, np.float32)
        mask[:, seen:] = 1
        return Batch(x, y, mask)

    @property
    def drawn(self) -> int:
        return self.horizon if self.stepwise else 0

    def spread(self, count: int, length: int) -> Batch:
        """Windows held out, evenly from the first to the last."""
        starts = self.starts(self.held_out, length)
        return self.windows(starts[np.linspace(0, len(starts) - 1, count).astype(int)], length)

    def batches(self, seed: int, batch: int, length: int) -> DataIterator:
        """Endless training batches: each epoch has every window once, shuffled anew."""
        starts = self.starts("train", length)

        def gather(places: np.ndarray) -> Batch:
            return self.windows(starts[places], length)

        return cast(DataIterator, gathered(len(starts), gather, seed=seed, batch=batch))

    def validation(self, batch: int, length: int, count: int | None = None) -> Iterator[Batch]:
        """Every window held out, once and in order; at most `count` batches."""
        starts = self.starts(self.held_out, length)
        batches = (
            without(self.windows(starts[places], length), beyond)
            for places, beyond in in_order(len(starts), batch)
        )
        return islice(batches, count)

    def naive(self, length: int) -> dict[str, Metrics]:
        """The errors of the last value seen and of the mean, over the windows held out."""
        starts = self.starts(self.held_out, length)
        seen = length - self.horizon
        steps = range(1 if self.stepwise else seen, length)
        found = {}
        for name in ("last value", "mean"):
            squares = absolute = 0.0
            for step in steps:
                before = step - 1 if self.stepwise else seen - 1
                guess = self.values[starts + before] if name == "last value" else 0
                error = np.abs(self.values[starts + step] - guess).astype(np.float64)
                squares, absolute = squares + (error**2).mean(), absolute + error.mean()
            mse, mae = float(squares / len(steps)), float(absolute / len(steps))
            if self.answer == "values":
                found[name] = {"loss": mse, "mse": mse, "mae": mae}
            elif self.answer == "quantiles":  # all at one place: the levels are symmetric
                found[name] = {"loss": mae / 2, "crps": mae}
            else:
                nll = self.values.shape[1] * (log(2 * pi * mse) + 1) / 2
                found[name] = {"loss": nll, "mae": mae, "rmse": mse**0.5}
        return found
