"""MNIST (LeCun et al. 1998): 60,000 + 10,000 handwritten digits, grey, 28 x 28; and the 1,797 of
scikit-learn, 8 x 8, which every machine has.

    image   uint8 [28, 28] or [8, 8], 0 to 255
    label   0 .. 9
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import DataError, File, read, reading

ORIGIN = "https://storage.googleapis.com/cvdf-datasets/mnist/"
SIZES = {"train-images-idx3-ubyte": 9912422, "train-labels-idx1-ubyte": 28881,
         "t10k-images-idx3-ubyte": 1648877, "t10k-labels-idx1-ubyte": 4542}  # fmt: skip


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an IDX file: 0 0 8 and its axes, their sizes, its numbers."""
    content = read(path)
    with reading(path, "an IDX file of uint8"):
        if content[:3] != b"\0\0\x08":
            raise ValueError(f"it begins with {content[:4].hex()}")
        axes = content[3]
        shape = np.frombuffer(content, ">i4", axes, 4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
        if values.size != shape.prod():
            raise EOFError(f"it has {values.size} numbers of {' x '.join(map(str, shape))}")
        return values.reshape(shape)


def idx_examples(paths: Paths) -> Splits:
    return {split: _digits(*(paths[f"{split}_{role}"][0] for role in ("images", "labels")))
            for split in ("train", "test")}  # fmt: skip


def _digits(images: Path, labels: Path) -> Iterator[Example]:
    x, y = read_idx(images), read_idx(labels)
    if x.shape[1:] != (28, 28) or y.shape != x.shape[:1]:
        raise DataError(
            f"{images} has {list(x.shape)} and {labels} {list(y.shape)}: they are not images of "
            "28 x 28 and a label for each"
        )
    return ({"image": image, "label": int(label)} for image, label in zip(x, y))


def _files(suffix: str) -> dict[str, File]:
    part = {"train": "train", "test": "t10k"}
    names = {
        f"{split}_{role}": f"{part[split]}-{role}-{kind}-ubyte"
        for split in part for role, kind in (("images", "idx3"), ("labels", "idx1"))
    }  # fmt: skip
    return {
        role: File(f"mnist/{name}{suffix}", SIZES[name] if suffix else None, ORIGIN)
        for role, name in names.items()
    }


def _features(size: int):
    def features():
        from seqjax.data.records import tfds

        f = tfds().features
        image = f.Tensor(shape=(size, size), dtype=np.uint8)
        return {"image": image, "label": f.ClassLabel(num_classes=10)}

    return features


def embedded_examples(paths: Paths) -> Splits:
    """Rows 0 to 1,437 and the rest: other people wrote those."""
    del paths
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(f"digits come with scikit-learn, in the extra `data` ({error})") from error
    x, y = load_digits(return_X_y=True)
    rows = [
        {"image": (image * (255 / 16)).round().astype(np.uint8).reshape(8, 8), "label": int(label)}
        for image, label in zip(x, y)
    ]
    return {"train": rows[:1437], "test": rows[1437:]}


MNIST = Dataset(
    "mnist", "MNIST", "LeCun et al. 1998", "CC BY-SA 3.0", _features(28),
    (Layout("full", _files(".gz"), idx_examples), Layout("full", _files(""), idx_examples)),
)  # fmt: skip
DIGITS = Dataset(
    "digits", "Digits of scikit-learn", "Alpaydin & Kaynak 1998", "CC BY 4.0", _features(8),
    (Layout("embedded", {}, embedded_examples),),
)  # fmt: skip
