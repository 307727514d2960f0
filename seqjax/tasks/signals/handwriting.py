"""Handwriting and drawing (Graves 2013, arXiv:1308.0850; sketch-rnn, arXiv:1704.03477): where the
pen goes next.

    input    x_t = s_{t-1}, x_1 = 0: offsets (x_1, x_2) and x_3 = 1 where the pen is lifted after
    target   s_t, by a mixture of `components` bivariate Gaussians and a Bernoulli

dataset="numerals" are made up, "omniglot" are letters, "iam_online" lines of text, and "quickdraw"
drawings of a category. As in sketch-rnn offsets are held within 1000 and are over their standard
deviation, of both directions together, here in the first 2,000 training drawings. The loss is in
nats per step, of the scaled offsets: a density, which may be below 0.

Baseline: one Gaussian and the frequency of lifting.
In the literature, of IAM: -1025.7 nats per line of one layer of LSTM with 20 components, -1041.0 of
three (1308.0850, table 3).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np

from seqjax.answers import Strokes
from seqjax.core.ranges import Count, Range
from seqjax.data import prepare
from seqjax.data.sets.strokes import IAM, MADE_UP, OMNIGLOT, quickdraw
from seqjax.tasks.records import COUNTED, Encoded, RecordTask, from_records
from seqjax.tasks.task import Features, Spec

LARGEST = 1000  # offset


def handwriting(
    *,
    dataset: Literal["numerals", "omniglot", "iam_online", "quickdraw"] = "numerals",
    category: str = "cat",
    components: Count = 20,
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The next offset of a pen.

    category: of the drawings of quickdraw.
    components: of the mixture.
    workers: processes that read the drawings ahead.
    """
    known = {"numerals": MADE_UP, "omniglot": OMNIGLOT, "iam_online": IAM}
    data = prepare(known[dataset] if dataset in known else quickdraw(category))
    train = data.source("train")
    some = [held(train[i]) for i in range(min(len(train), COUNTED))]
    scale = float(np.std(np.concatenate(some)[:, :2], dtype=np.float64)) or 1.0
    parts = {part: part for part in ("train", "validation", "test")}
    steps = max(int(data.source(part)[0]["longest"]) for part in parts)

    def encode(example: Any, length: int) -> Encoded:
        y = held(example) / np.array([scale, scale, 1])
        return {"x": np.concatenate([np.zeros((1, 3)), y[:-1]]), "y": y}

    spec = Spec(Features(3), Strokes(components, per_step=True))
    task = from_records(
        "handwriting", spec, data, encode, parts=parts, held_out=held_out, steps=steps,
        ragged=True, workers=workers,
    )  # fmt: skip
    return replace(task, lines=lines)


def held(example: Mapping[str, Any]) -> np.ndarray:
    """The strokes [T, 3], without great leaps."""
    return np.clip(example["strokes"], -LARGEST, LARGEST)


def lines(strokes: np.ndarray) -> list[np.ndarray]:
    """The points [n, 2] of each line that strokes [T, 3] draw."""
    points, ends = np.cumsum(strokes[:, :2], axis=0), np.flatnonzero(strokes[:, 2] > 0) + 1
    return [line for line in np.split(points, ends) if len(line)]
