"""The archives of time series of UEA and UCR (arXiv:1811.00075, arXiv:1810.07758), of classes, and
the one of Monash, UEA and UCR whose targets are numbers (arXiv:2006.10996): .ts files.

    values    float32 [T D], step by step; NaN where one is missing
    channels  D
    label     0 .. classes - 1, in the order of the file; or target, a number
    classes   how many there are
    shortest, longest  T of the shortest and the longest series of the split

Of each set the archives have a folder, and a .zip, with its two files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import DataError, File, members, read, reading

CLASSES, TARGETS = "https://timeseriesclassification.com", "https://tseregression.org"
SKTIME = "https://github.com/sktime/sktime, sktime/datasets/data, packed"
PACKED = ("ACSF1", "ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand", "JapaneseVowels",
          "OSULeaf", "PLAID")  # fmt: skip
VITAL = ("BIDMC32RR", "BIDMC32HR", "BIDMC32SpO2")
MISSING = {"?", "nan", "NaN", "NAN"}


@dataclass
class Series:
    """What a .ts file has: each series [T, D]; its class or target; the names of the classes."""

    values: list[np.ndarray]
    y: list[str]  # in small letters, as heads and lines of some sets differ in them
    classes: list[str] | None  # None: targets are numbers


def parse(text: str) -> Series:
    """The series of a .ts file. Raises ValueError.

    After a head of `@name value` and `@data` there is a line for each series: its channels apart
    by colons, the last of which is its class; the numbers of a channel apart by commas.
    """
    head, found = {}, None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if found is None:
            name, *rest = line.split()
            if not name.startswith("@"):
                raise ValueError(f"line {number} is before @data, and none of its head")
            head[name[1:].lower()] = rest
            if name.lower() == "@data":
                found = Series([], [], _classes(head))
        else:
            *channels, y = line.split(":")
            if not channels:
                raise ValueError(f"line {number} has no class after its numbers")
            found.values.append(_values(channels, number))
            found.y.append(y.strip().lower())
            if found.classes is not None and found.y[-1] not in found.classes:
                raise ValueError(f"line {number} has the class {found.y[-1]:.40}, which its head "
                                 f"has not")  # fmt: skip
    if found is None or not found.y:
        raise EOFError(f"it has {'no @data' if found is None else 'no series'}")
    return found


def _classes(head: dict[str, list[str]]) -> list[str] | None:
    if head.get("timestamps", ["false"])[0].lower() == "true":
        raise ValueError("its series have time stamps, which are not read")
    has, *names = head.get("classlabel", ["false"])
    if has.lower() == "true" and names:
        return [name.lower() for name in names]
    if head.get("targetlabel", ["false"])[0].lower() == "true":
        return None
    raise ValueError("neither @classLabel nor @targetLabel of its head is true")


def _values(channels: list[str], number: int) -> np.ndarray:
    columns = [
        np.array(["nan" if v.strip() in MISSING else v for v in channel.split(",")], np.float64)
        for channel in channels
    ]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"line {number} has channels of {sorted({*map(len, columns)})} steps")
    return np.stack(columns, axis=1).astype(np.float32)


def _examples(series: Series) -> Iterator[Example]:
    steps = [len(values) for values in series.values]
    ends = {"shortest": min(steps), "longest": max(steps)}
    for values, y in zip(series.values, series.y):
        example = {"values": values.reshape(-1), "channels": values.shape[1], **ends}
        if series.classes is None:
            yield example | {"target": float(y)}
        else:
            yield example | {"label": series.classes.index(y), "classes": len(series.classes)}


def _both(name: str, found: dict[str, tuple[Path, bytes]]) -> Splits:
    splits = {}
    for split, (path, content) in found.items():
        with reading(path, f"the .ts file of {name}, {split}"):
            series = parse(content.decode())
            if (series.classes is None) != (name in VITAL):
                raise ValueError(f"its targets are {'classes' if series.classes else 'numbers'}")
            if series.classes is None:
                np.array(series.y, np.float64)
            splits[split] = series
    train, test = splits["train"], splits["test"]
    widths = {values.shape[1] for series in (train, test) for values in series.values}
    if train.classes != test.classes or len(widths) > 1:
        raise DataError(f"{found['train'][0]} and the test series of {name} have other classes, "
                        f"or channels: {sorted(widths)}")  # fmt: skip
    return {split: _examples(series) for split, series in splits.items()}


def folder_examples(paths: Paths, name: str) -> Splits:
    return _both(name, {split: (path, read(path)) for split, (path,) in sorted(paths.items())})


def archive_examples(paths: Paths, name: str) -> Splits:
    """Of the files NAME_TRAIN.ts and NAME_TEST.ts, wherever they are in it."""
    (path,) = paths["archive"]
    wanted = {f"{name}_{split.upper()}.ts": split for split in ("train", "test")}
    found = {}
    for member, content in members(path):
        split = wanted.get(PurePosixPath(member).name)
        if split:
            found[split] = (path, content)
    if len(found) < 2:
        raise DataError(f"{path} is not what it should be: it has no {' and '.join(wanted)}")
    return _both(name, found)


def _features(kind: str):
    def features():
        from seqjax.data.records import tfds

        f = tfds().features
        y = {"target": np.float32} if kind == "target" else {"label": np.int64, "classes": np.int64}
        numbers = dict.fromkeys(("channels", "shortest", "longest"), np.int64)
        return {"values": f.Tensor(shape=(None,), dtype=np.float32), **numbers, **y}

    return features


def archived(name: str) -> Dataset:
    """The set of that name, of either archive. Raises ValueError for what is no name."""
    if not re.fullmatch(r"[A-Za-z0-9]+(-?[A-Za-z0-9]+)*", name):
        raise ValueError(f"a set has a name as the archive spells it, GunPoint, got {name!r:.60}")
    vital = name in VITAL
    origin = TARGETS if vital else CLASSES
    folder = {
        split: File(f"ucr-uea/{name}/{name}_{split.upper()}.ts", None, origin)
        for split in ("train", "test")
    }
    layouts = [
        Layout("folder", folder, partial(folder_examples, name=name)),
        Layout("zip", {"archive": File(f"ucr-uea/{name}.zip", None, origin)},
               partial(archive_examples, name=name)),
    ]  # fmt: skip
    if name in PACKED:
        packed = File("ucr-uea/ucr_uea_sktime.tar.xz", 2851236, SKTIME)
        layouts.append(Layout("tar", {"archive": packed}, partial(archive_examples, name=name)))
    found = Dataset(
        f"uea_{name.lower().replace('-', '_')}", f"{name} of UEA and UCR",
        "1811.00075, 1810.07758", "not stated", _features("class"),
        tuple(layouts),
    )  # fmt: skip
    if not vital:
        return found
    return replace(found, title=f"{name} of Monash, UEA and UCR", reference="2006.10996",
                   licence="ODC-BY 1.0", features=_features("target"))  # fmt: skip


SETS = tuple(archived(name) for name in (*PACKED, "EigenWorms", *VITAL))
