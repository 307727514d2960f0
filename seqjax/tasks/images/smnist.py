"""Sequential MNIST (arXiv:1504.00941): a digit, seen pixel by pixel.

    input    x_t in [0, 1], the pixels, row by row     T = 784, of `digits` 64; D = 1
    target   the digit                                 one class per sequence

order="permuted" (psMNIST) shows the pixels in an order that is drawn once, by a seed, and is the
same for all images; papers differ in theirs.  order="rows" shows a row at a step, T = D = 28.

data="digits" are scikit-learn's 8 x 8 digits, which every machine has; data="mnist" needs files.
Validation is on the last 5,000 (of digits 180) of the training images, held_out="test" on the test
images, those of other writers.

Baseline: the frequencies of the classes, accuracy about 0.1.
Test accuracy in the literature, of MNIST by pixels and permuted: IRNN 0.97 and 0.82 (1504.00941),
LSTM 0.982 and 0.880, uRNN 0.951 and 0.914 (1511.06464), LMU permuted 0.9715 (NeurIPS 2019), S4
0.9963 and 0.9870 (2111.00396).
"""

from typing import Annotated, Any, Literal

import numpy as np

from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Classes, Features, Spec

SIZES = {"mnist": 28, "digits": 8}
HELD_OUT = {"mnist": 5000, "digits": 180}  # of the training images, for validation


def image_parts(data: str) -> dict[str, str]:
    """Slices of the splits of `mnist` and of `digits`, by what they are for."""
    n = HELD_OUT[data]
    return {"train": f"train[:-{n}]", "validation": f"train[-{n}:]", "test": "test"}


def smnist(
    *,
    data: Literal["digits", "mnist"] = "digits",
    order: Literal["pixels", "permuted", "rows"] = "pixels",
    seed: Annotated[int, Range(0)] = 0,
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The digit of an image whose pixels come one by one.

    data: whose digits.
    order: of the pixels.
    seed: of the permutation.
    held_out: what is validated on: a part of the training data, or the test data.
    workers: processes that read the images ahead.
    """
    size = SIZES[data]
    # RandomState draws the same numbers in every version of numpy
    places = np.random.RandomState(seed).permutation(size * size)

    def encode(example: Any, length: int) -> Encoded:
        x = example["image"].astype(np.float32) / 255
        if order != "rows":
            x = x.reshape(-1, 1)
        return {"x": x[places] if order == "permuted" else x, "y": example["label"]}

    width = size if order == "rows" else 1
    spec = Spec(Features(width), Classes(10, per_step=False))
    return from_records(
        "smnist", spec, prepared(data), encode, parts=image_parts(data), held_out=held_out,
        steps=size * size // width, workers=workers,
    )  # fmt: skip
