"""Noise-padded CIFAR (arXiv:1902.09689): a photograph, row by row, and noise for a long time.

    input    float32 [T, 96]    T = 1000
             steps 0 .. 31      a row of 32 pixels, red, green and blue of each
             from 32 on         noise, which has to be waited out
    target   the class of the image, after all of it      one class per sequence

noise="uniform" is uniform on (0, 1), beside pixels in [0, 1], noise="normal" normal, beside pixels
less the mean and over the deviation of each colour.  Noise is drawn once, by a seed; each image has
a piece of it that begins at one of 4,096 places, the same in every epoch.

Validation and images are those of `lra_image`.

Baseline: the frequencies of the classes, accuracy 0.1.
Length generalisation: more steps of noise; `length` is all of them.
Test accuracy in the literature, on all images: LSTM 0.116, AntisymmetricRNN 0.483, gated 0.547
(1902.09689).
"""

from functools import cache
from typing import Annotated, Any, Literal
from zlib import crc32

import numpy as np

from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.tasks.images.lra_image import PARTS, scaled
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Classes, Features, Spec

PLACES = 4096  # where the noise of an image may begin


@cache
def drawn(noise: str, seed: int, length: int) -> np.ndarray:
    """Noise float32 [PLACES + length, 96], as `seed` draws it."""
    # RandomState draws the same numbers in every version of numpy
    random = np.random.RandomState(seed)
    draw = random.standard_normal if noise == "normal" else random.random_sample
    return draw((PLACES + length, 96)).astype(np.float32)


def npcifar(
    *,
    noise: Literal["uniform", "normal"] = "uniform",
    seed: Annotated[int, Range(0)] = 0,
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The class of a photograph, after noise.

    noise: of the steps after the image.
    seed: of it.
    held_out: what is validated on: a part of the training data, or the test data.
    workers: processes that read the images ahead.
    """

    def encode(example: Any, length: int) -> Encoded:
        image = example["image"]
        if length < len(image):
            raise ValueError(f"npcifar has at least {len(image)} steps, got length {length}")
        pixels = scaled(image) if noise == "normal" else (image / 255).astype(np.float32)
        rows = pixels.reshape(len(image), -1)
        begin = crc32(image.tobytes()) % PLACES
        after = drawn(noise, seed, length)[begin : begin + length - len(rows)]
        return {"x": np.concatenate([rows, after]), "y": example["label"]}

    spec = Spec(Features(96), Classes(10, per_step=False))
    return from_records(
        "npcifar", spec, prepared("cifar10"), encode, parts=PARTS, held_out=held_out, steps=1000,
        workers=workers,
    )  # fmt: skip
