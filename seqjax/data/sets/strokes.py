"""What a pen drew, as offsets: Omniglot and Quick, Draw! in the files of sketch-rnn
(arXiv:1704.03477), lines of handwriting, the IAM on-line database (Liwicki & Bunke 2005), and
numerals that are made up here, for machines that have none of these.

    strokes  float32 [T, 3]: from the point before, to the right and down; 1 where the pen is
             lifted after
    longest  T of the longest drawing of the split
    text     what is written, of numbers that are made up
    splits   train, validation and test, as published

Of IAM the forms that trainset.txt, testset_v.txt and testset_f.txt name, one in a line, are those
splits; a form is the name of its lines without their number, and a writer's letter may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import DataError, File, members, read_text, reading
from seqjax.data.pickles import read_npz

SKETCH_RNN = "https://github.com/hardmaru/sketch-rnn-datasets"
QUICK_DRAW = "https://console.cloud.google.com/storage/browser/quickdraw_dataset/sketchrnn"
IAM_ORIGIN = "https://fki.tic.heia-fr.ch/databases/iam-on-line-handwriting-database"
NAMES = {"train": "train", "validation": "valid", "test": "test"}  # of sketch-rnn
LISTS = {"train": "trainset.txt", "validation": "testset_v.txt", "test": "testset_f.txt"}


def sketch_examples(paths: Paths) -> Splits:
    """Of the arrays train, valid and test, each of drawings int16 [T, 3]."""
    (path,) = paths["drawings"]
    found = dict(read_npz(path))
    with reading(path, "a .npz file of sketch-rnn"):
        if not set(NAMES.values()) <= set(found):
            raise ValueError(f"it has {', '.join(found)}, and not train, valid and test")
        drawings = {split: [_drawing(one) for one in found[name]] for split, name in NAMES.items()}
    return {split: _examples(some) for split, some in drawings.items()}


def _drawing(one: Any) -> np.ndarray:
    one = np.asarray(one)
    if one.ndim != 2 or one.shape[1] != 3 or not len(one) or one.dtype.kind not in "iuf":
        raise ValueError(f"a drawing is {one.dtype} {list(one.shape)}, and not numbers [T, 3]")
    if not np.isfinite(one.astype(np.float64)).all() or not np.isin(one[:, 2], (0, 1)).all():
        raise ValueError("a drawing has offsets that are not finite, or a pen that is not 0 or 1")
    return one.astype(np.float32)


def _examples(drawings: list[np.ndarray]) -> Iterator[Example]:
    longest = max((len(one) for one in drawings), default=0)
    return ({"strokes": one, "longest": longest} for one in drawings)


def iam_examples(paths: Paths) -> Splits:
    """Of all lines lineStrokes/**/FORM-NN.xml of the archive, in its order."""
    (archive,) = paths["lines"]
    split_of = {}
    for split, (path,) in ((split, paths[split]) for split in LISTS):
        with reading(path, "a list of forms"):
            forms = read_text(path).split()
            odd = next((form for form in forms if not re.fullmatch(r"[a-z]\d\d-\d+[a-z]?", form)),
                       None)  # fmt: skip
            if odd is not None:
                raise ValueError(f"{odd[:40]!r} is no form such as a01-000u")
        split_of |= dict.fromkeys(forms, split)
    drawings: dict[str, list[np.ndarray]] = {split: [] for split in LISTS}
    for name, content in members(archive):
        file = PurePosixPath(name)
        if file.suffix == ".xml":
            form = file.stem.rpartition("-")[0]
            split = split_of.get(form) or split_of.get(form.rstrip("abcdefghijklmnopqrstuvwxyz"))
            if split:
                with reading(archive, f"lines of strokes, in {name}"):
                    drawings[split].append(offsets(content))
    lacking = [split for split, found in drawings.items() if not found]
    if lacking:
        raise DataError(f"{archive} has no line of the forms of {', '.join(lacking)}")
    return {split: _examples(found) for split, found in drawings.items()}


def offsets(xml: bytes) -> np.ndarray:
    """The strokes [T, 3] of <Stroke><Point x= y=>..; the first point is at no offset.

    Raises ValueError.
    """
    try:
        tree = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    rows = [
        (float(point.attrib["x"]), float(point.attrib["y"]), last)
        for stroke in tree.iter("Stroke") if (points := list(stroke.iter("Point")))
        for last, point in zip([0] * (len(points) - 1) + [1], points)
    ]  # fmt: skip
    if not rows:
        raise ValueError("it has no stroke")
    points = np.array(rows, np.float64)
    points[:, :2] = np.diff(points[:, :2], axis=0, prepend=points[:1, :2])
    return points.astype(np.float32)


# Corners of the ten numerals, to the right and down, a stroke after the other.
NUMERALS = (
    "0011 1002 2002 2040 1050 0040 0011", "0110 2000 2050", "0010 1000 2010 2020 0050 2050",
    "0000 2000 1020 2030 2040 1050 0040", "1000 0030 2030/2010 2050", "2000 0000 0020 2030 1050",
    "2000 0030 0040 1050 2040 2030 0030", "0000 2000 1050/0525 2025",
    "1025 0015 0005 1000 2005 2015 1025 2035 2045 1050 0045 0035 1025",
    "2010 1020 0010 1000 2010 1550",
)  # fmt: skip


def numerals(paths: Paths) -> Splits:
    """600, 100 and 100 numerals, each of another size and slant, by an unsteady hand."""
    del paths
    draw = np.random.RandomState(0)  # which draws the same numbers in every version of numpy
    drawn = [_offsets(_numeral(draw, n % 10, *_hand(draw))) for n in range(800)]
    ends = {"train": (0, 600), "validation": (600, 700), "test": (700, 800)}
    return {split: _examples(drawn[slice(*end)]) for split, end in ends.items()}


def numbers(paths: Paths) -> Splits:
    """2000, 200 and 200 numbers of one to three digits, each by one hand, with what is written."""
    del paths
    draw, found = np.random.RandomState(1), []
    for _ in range(2400):
        digits, hand = draw.randint(10, size=draw.randint(1, 4)), _hand(draw)
        rows = [_numeral(draw, digit, *hand, right=0.35 * n) for n, digit in enumerate(digits)]
        found.append((_offsets(np.concatenate(rows)), "".join(map(str, digits)).encode()))
    longest = max(len(strokes) for strokes, _ in found)
    ends = {"train": (0, 2000), "validation": (2000, 2200), "test": (2200, 2400)}
    return {
        split: ({"strokes": strokes, "text": text, "longest": longest}
                for strokes, text in found[slice(*end)])
        for split, end in ends.items()
    }  # fmt: skip


def _hand(draw: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """The size and the slant of what one hand writes."""
    size = 4 * draw.uniform(0.7, 1.3, 2)
    return size, np.array([[1, 0], [draw.uniform(-0.4, 0.1), 1]])


def _numeral(
    draw: np.random.RandomState, digit: int, size: np.ndarray, shear: np.ndarray, right: float = 0.0
) -> np.ndarray:
    """Points [n, 3] of a numeral, `right` of where the first one stands."""
    strokes = []
    for corners in NUMERALS[digit].split("/"):
        at = np.array([(int(c[:2]), int(c[2:])) for c in corners.split()]) / 10
        at[:, 0] += 10 * right
        pace = np.linspace(0, len(at) - 1, 3 * len(at) - 2)
        line = np.stack([np.interp(pace, np.arange(len(at)), xy) for xy in at.T], axis=1)
        points = (line * size) @ shear + 0.1 * draw.standard_normal(line.shape)
        strokes.append(np.concatenate([points, np.eye(len(points))[:, -1:]], axis=1))
    return np.concatenate(strokes)


def _offsets(points: np.ndarray) -> np.ndarray:
    points[:, :2] = np.diff(points[:, :2], axis=0, prepend=points[:1, :2])
    return points.astype(np.float32)


def _features():
    from seqjax.data.records import tfds

    strokes = tfds().features.Tensor(shape=(None, 3), dtype=np.float32)
    return {"strokes": strokes, "longest": np.int64}


def _with_text():
    from seqjax.data.records import tfds

    return {**_features(), "text": tfds().features.Text()}


def quickdraw(category: str) -> Dataset:
    """70,000, 2,500 and 2,500 drawings of a category. Raises ValueError for what is no name."""
    if not re.fullmatch(r"[a-z][a-z0-9 \-]*", category):
        raise ValueError(f"a category has small letters, as 'cat' or 'hot air balloon', "
                         f"got {category!r:.60}")  # fmt: skip
    file = File(f"sketchrnn/{category}.npz", None, QUICK_DRAW)
    return Dataset(
        f"quickdraw_{re.sub('[ -]', '_', category)}", f"Quick, Draw! of {category}",
        "1704.03477", "CC BY 4.0", _features,
        (Layout("sketch_rnn", {"drawings": file}, sketch_examples),),
    )  # fmt: skip


MADE_UP = Dataset(
    "numerals", "Numerals, made up", "none", "Apache-2.0", _features,
    (Layout("embedded", {}, numerals),),
)  # fmt: skip
NUMBERS = Dataset(
    "numbers", "Numbers, made up, and their digits", "none", "Apache-2.0", _with_text,
    (Layout("embedded", {}, numbers),),
)  # fmt: skip
OMNIGLOT = Dataset(
    "omniglot", "Omniglot: letters of 50 alphabets, as strokes", "Lake et al. 2015", "MIT",
    _features,
    (Layout("sketch_rnn", {"drawings": File("sketchrnn/omniglot.npz", 2280239, SKETCH_RNN)},
            sketch_examples),),
)  # fmt: skip
IAM = Dataset(
    "iam_online", "IAM on-line handwriting: lines of text", "Liwicki & Bunke 2005",
    "research only", _features,
    (Layout("archive",
            {"lines": File("iam-online/lineStrokes-all.tar.gz", None, IAM_ORIGIN),
             **{split: File(f"iam-online/{name}", None, IAM_ORIGIN)
                for split, name in LISTS.items()}}, iam_examples),),
)  # fmt: skip
STROKES = (MADE_UP, NUMBERS, OMNIGLOT, IAM, quickdraw("cat"))
