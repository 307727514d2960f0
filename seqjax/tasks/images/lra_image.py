"""Image of the Long Range Arena (arXiv:2011.04006), and sequential CIFAR in colour: what a
photograph shows, pixel by pixel.

    input    T = 1024 pixels, row by row
             tokens: the grey value, 0 .. 255, as the benchmark has it
             grey:   the same as a number, D = 1      colour:  red, green and blue, D = 3
    target   the class of the image                  one class per sequence

Grey is 0.2989 R + 0.587 G + 0.114 B, cut to a whole number. Numbers are less the mean and over the
standard deviation of the training pixels (of grey 0.481 and 0.239 of 255; of colour each its own).

Validation is on the last tenth of the training images (the benchmark's 5,000 of 50,000),
held_out="test" on the test images.  `seqjax data` lists which images there are: all of CIFAR-10, or
a subset of 10,000 + 2,000 saved as JPEG, whose numbers are not the literature's.

Baseline: the frequencies of the classes, accuracy 0.1.
Test accuracy in the literature, on all images: Transformer 0.4244 (2011.04006), LRU 0.89
(2303.06349), S5 0.88 (2208.04933), Mega 0.9044 (2209.10655).
"""

from typing import Annotated, Any, Literal

import numpy as np

from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Classes, Features, Spec, Tokens

PARTS = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
GREY = np.array([0.2989, 0.587, 0.114])
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of red, green and blue


def grey(image: np.ndarray) -> np.ndarray:
    """uint8 [..] of red, green and blue uint8 [.., 3]."""
    return (image @ GREY).astype(np.uint8)


def scaled(image: np.ndarray) -> np.ndarray:
    """float32 [.., 3] less the mean and over the deviation of each colour."""
    return ((image / 255 - MEAN) / DEVIATION).astype(np.float32)


def lra_image(
    *,
    form: Literal["tokens", "grey", "colour"] = "tokens",
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The class of a photograph whose pixels come one by one.

    form: of a pixel.
    held_out: what is validated on: a part of the training data, or the test data.
    workers: processes that read the images ahead.
    """

    def encode(example: Any, length: int) -> Encoded:
        image = example["image"].reshape(-1, 3)
        if form == "colour":
            x = scaled(image)
        elif form == "grey":
            x = ((grey(image) / 255 - 0.481) / 0.239).astype(np.float32)[:, None]
        else:
            x = grey(image)
        return {"x": x, "y": example["label"]}

    inputs = {"tokens": Tokens(256), "grey": Features(1), "colour": Features(3)}[form]
    return from_records(
        "lra_image", Spec(inputs, Classes(10, per_step=False)), prepared("cifar10"), encode,
        parts=PARTS, held_out=held_out, steps=1024, workers=workers,
    )  # fmt: skip
