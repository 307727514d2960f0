"""Images as sequences of pixels that a model writes (arXiv:1601.06759, 2606.06479).

    input    int32 [T]    0, then the pixels but the last
    target   int32 [T]    the pixels, row by row        one of `levels` values on each step

T is 784 for MNIST, 64 for `digits`, and 3072 for CIFAR, where red, green and blue of a pixel follow
each other.  levels=256 are the values of the file, fewer are of equal width; levels=2 is black or
white by the middle.

Metrics: loss in nats per dimension, `bits` per dimension (a colour of a pixel is one), accuracy.
Every pixel counts, the first one too, which is predicted from nothing.
Baseline: the frequencies of the values.
A trained model draws images: `python -m experiments.drawings RUN`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from seqjax.answers.metrics import bits
from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.tasks.images.lra_image import PARTS
from seqjax.tasks.images.smnist import image_parts
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Classes, Metrics, Spec, Tokens

SHAPES = {"digits": (8, 8), "mnist": (28, 28), "cifar10": (32, 32, 3)}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PixelTask(RecordTask):
    """The task of `gen_mnist`."""

    shape: tuple[int, ...]  # of an image

    def score(self, y_hat, batch) -> Metrics:
        metrics = super().score(y_hat, batch)
        return {
            "loss": metrics["loss"],
            "bits": bits(metrics["loss"]),
            "accuracy": metrics["accuracy"],
        }


def gen_mnist(
    *,
    data: Literal["digits", "mnist", "cifar10"] = "digits",
    levels: Annotated[int, Range(2, 256)] = 256,
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> PixelTask:
    """The next value of an image.

    data: which images.
    levels: how many values a pixel may have.
    held_out: what is validated on: a part of the training data, or the test data.
    workers: processes that read the images ahead.
    """

    def encode(example: Any, length: int) -> Encoded:
        y = example["image"].reshape(-1).astype(np.int32) * levels // 256
        return {"x": np.concatenate([[0], y[:-1]]), "y": y}

    spec = Spec(Tokens(levels), Classes(levels, per_step=True))
    parts = PARTS if data == "cifar10" else image_parts(data)
    shape = SHAPES[data]
    task = from_records(
        "gen_mnist", spec, prepared(data), encode, parts=parts, held_out=held_out,
        steps=int(np.prod(shape)), workers=workers,
    )  # fmt: skip
    return PixelTask(**{**vars(task), "baseline": _with_bits(task.baseline)}, shape=shape)


def _with_bits(baseline):
    def found(length: int) -> Metrics:
        metrics = baseline(length)
        return {**metrics, "bits": bits(metrics["loss"])}

    return found
