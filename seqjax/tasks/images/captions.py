"""One to many: a picture in, its name spelt out.

    input    float32 [D]      the pixels of a digit, seen at the first step only
    target   int32 [6]        the letters of its English name and the end: z e r o END

26 letters and the end, 27 classes on each step; after the end nothing counts.  No letter is shown
to the model: which one is due has to be counted, so the state carries the name and the place.

Images, validation and `held_out` are those of `smnist`.

Metrics: accuracy of letters, sequence_accuracy of names.
Baseline: the frequencies of the letters.
"""

from typing import Annotated, Any, Literal

import numpy as np

from seqjax.answers.inputs import Vector
from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.tasks.images.smnist import SIZES, image_parts
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Batch, Classes, Spec

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STEPS = max(map(len, NAMES)) + 1
END = 26
LETTERS = np.full((10, STEPS), END, np.int32)
for _row, _name in zip(LETTERS, NAMES):
    _row[: len(_name)] = [ord(letter) - ord("a") for letter in _name]
COUNTS = np.arange(STEPS) <= np.array([[len(name)] for name in NAMES])


def spelt(letters: Any) -> str:
    """The name that classes spell, up to the end."""
    found = "".join("abcdefghijklmnopqrstuvwxyz."[int(letter)] for letter in letters)
    return found.partition(".")[0]


def captions(
    *,
    data: Literal["digits", "mnist"] = "digits",
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The name of a digit, letter by letter.

    data: whose digits.
    held_out: what is validated on: a part of the training data, or the test data.
    workers: processes that read the images ahead.
    """

    def encode(example: Any, length: int) -> Encoded:
        if length != STEPS:
            raise ValueError(f"captions have {STEPS} steps, got length {length}")
        return {"x": example["image"].reshape(-1).astype(np.float32) / 255, "y": example["label"]}

    def collate(encoded: list[Encoded], length: int) -> Batch:
        labels = np.array([one["y"] for one in encoded])
        x = np.stack([one["x"] for one in encoded])
        return Batch(x, LETTERS[labels], COUNTS[labels].astype(np.float32))

    inputs = Vector(SIZES[data] ** 2, STEPS, first_only=True)
    return from_records(
        "captions", Spec(inputs, Classes(END + 1, per_step=True)), prepared(data), encode,
        parts=image_parts(data), held_out=held_out, steps=STEPS, collate=collate, workers=workers,
    )  # fmt: skip
