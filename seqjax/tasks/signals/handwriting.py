"""Handwriting and drawing (Graves 2013, arXiv:1308.0850; sketch-rnn, arXiv:1704.03477): where the
pen goes next.

    input    x_t = s_{t-1}, x_1 = 0: offsets (x_1, x_2) and x_3 = 1 where the pen is lifted after
    target   s_t, by a mixture of `components` bivariate Gaussians and a Bernoulli

dataset="numerals" are made up, "numbers" have one to three of them side by side, "omniglot" are
letters, "iam_online" lines of text, and "quickdraw" drawings of a category. As in sketch-rnn
offsets are held within 1000 and are over their standard deviation, of both directions together,
here in the first 2,000 training drawings. The loss is in nats per step, of the scaled offsets: a
density, which may be below 0.

With `conditioned`, of numbers, what is to be written is a source beside it (sec. 5), a pair:

    source   the digits and an end, 10          target   x        out   s

Baseline: one Gaussian and the frequency of lifting.
In the literature, of IAM: -1025.7 nats per line of one layer of LSTM with 20 components, -1041.0 of
three (1308.0850, table 3).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np

from seqjax.answers import Pair, Paired, Strokes
from seqjax.core.ranges import Count, Range
from seqjax.data import prepare
from seqjax.data.sets.strokes import IAM, MADE_UP, NUMBERS, OMNIGLOT, quickdraw
from seqjax.tasks.records import COUNTED, Encoded, RecordTask, from_records, padded
from seqjax.tasks.task import Batch, Features, Spec, Tokens

LARGEST = 1000  # offset
END, LONGEST_TEXT = 10, 4  # behind the digits, of which there are at most three


def handwriting(
    *,
    dataset: Literal["numerals", "numbers", "omniglot", "iam_online", "quickdraw"] = "numerals",
    category: str = "cat",
    components: Count = 20,
    conditioned: bool = False,
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The next offset of a pen.

    category: of the drawings of quickdraw.
    components: of the mixture.
    conditioned: what is to be written is read before, of dataset=numbers.
    workers: processes that read the drawings ahead.
    """
    if conditioned and dataset != "numbers":
        raise ValueError(
            f"conditioned is of dataset='numbers', whose text is known, got {dataset!r}"
        )
    known = {"numerals": MADE_UP, "numbers": NUMBERS, "omniglot": OMNIGLOT, "iam_online": IAM}
    data = prepare(known[dataset] if dataset in known else quickdraw(category))
    train = data.source("train")
    some = [held(train[i]) for i in range(min(len(train), COUNTED))]
    scale = float(np.std(np.concatenate(some)[:, :2], dtype=np.float64)) or 1.0
    parts = {part: part for part in ("train", "validation", "test")}
    steps = max(int(data.source(part)[0]["longest"]) for part in parts)

    def encode(example: Any, length: int) -> Encoded:
        y = held(example) / np.array([scale, scale, 1])
        text = {"text": example["text"]} if conditioned else {}
        return {"x": np.concatenate([np.zeros((1, 3)), y[:-1]]), "y": y, **text}

    outputs = Strokes(components, per_step=True)
    spec = plain = Spec(Features(3), outputs)

    def beside(encoded: list[Encoded], length: int) -> Batch:
        batch = padded(encoded, length, plain, ragged=True)
        rows = [digits(one["text"]) for one in encoded]
        source = np.zeros((len(rows), LONGEST_TEXT), np.int32)
        present = np.zeros(source.shape, bool)
        for n, row in enumerate(rows):
            source[n, : len(row)], present[n, : len(row)] = row, True
        return batch._replace(x=Paired(source, batch.x, present))

    if conditioned:
        spec = Spec(Pair(Tokens(END + 1), Features(3), 0), outputs)
    task = from_records(
        "handwriting", spec, data, encode, parts=parts, held_out=held_out, steps=steps,
        ragged=True, collate=beside if conditioned else None, workers=workers,
    )  # fmt: skip
    return replace(task, lines=lines)


def digits(text: bytes) -> np.ndarray:
    """The source of a number, as in batches. Raises ValueError for what is no digits."""
    if not text.isdigit() or len(text) >= LONGEST_TEXT:
        raise ValueError(f"a number has 1 to {LONGEST_TEXT - 1} digits, got {text.decode()!r}")
    return np.array([*(byte - ord("0") for byte in text), END], np.int32)


def held(example: Mapping[str, Any]) -> np.ndarray:
    """The strokes [T, 3], without great leaps."""
    return np.clip(example["strokes"], -LARGEST, LARGEST)


def lines(strokes: np.ndarray) -> list[np.ndarray]:
    """The points [n, 2] of each line that strokes [T, 3] draw."""
    points, ends = np.cumsum(strokes[:, :2], axis=0), np.flatnonzero(strokes[:, 2] > 0) + 1
    return [line for line in np.split(points, ends) if len(line)]
