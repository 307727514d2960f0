"""Human activity recognition with smartphones (Anguita et al. 2013): 2.56 s of six activities.

    signals   float32 [128, 9]: acceleration of the body, turns of it, total acceleration, x y z
    activity  0 .. 5: walking, up and down stairs, sitting, standing, lying
    person    1 .. 30

Windows overlap by half, and the splits share no person: of those that were published to train on
the last fifth by number, 27 to 30, are the split `validation` here.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import DataError, File, members, read, reading

ORIGIN = "https://archive.ics.uci.edu/dataset/240"
ROOT, STEPS = "UCI HAR Dataset", 128
SIGNALS = tuple(f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc")
                for axis in "xyz")  # fmt: skip
ACTIVITIES = ("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "lying")


def _names(part: str) -> dict[str, str]:
    """Paths below the root by what they hold, of the part "train" or "test"."""
    signals = {name: f"{part}/Inertial Signals/{name}_{part}.txt" for name in SIGNALS}
    return {**signals, "y": f"{part}/y_{part}.txt", "subject": f"{part}/subject_{part}.txt"}


def _examples(find: Callable[[str], tuple[Path, bytes]]) -> Splits:
    """find: from a path below the root to the file it is in, and its bytes."""
    splits: dict[str, list[Example]] = {}
    for part in ("train", "test"):
        tables = {}
        for role, name in _names(part).items():
            path, content = find(name)
            with reading(path, f"a table of numbers, {name}"):
                tables[role] = _table(content, STEPS if role in SIGNALS else 1)
        sizes = [len(table) for table in tables.values()]
        usual = max(set(sizes), key=sizes.count)
        for role, size in zip(tables, sizes):
            if size != usual:
                raise DataError(f"{find(_names(part)[role])[0]}: {_names(part)[role]} has {size} "
                                f"rows, and what is beside it {usual}")  # fmt: skip
        signals = np.stack([tables[name] for name in SIGNALS], axis=2).astype(np.float32)
        activity, person = (tables[role][:, 0].astype(int) for role in ("y", "subject"))
        if not np.isin(activity, range(1, 7)).all():
            raise DataError(f"{find(_names(part)['y'])[0]} has activities that are not 1 to 6")
        splits[part] = [{"signals": s, "activity": int(a) - 1, "person": int(p)}
                        for s, a, p in zip(signals, activity, person)]  # fmt: skip
    persons = sorted({one["person"] for one in splits["train"]})
    apart = set(persons[-max(1, len(persons) // 5) :])
    return {
        "train": [one for one in splits["train"] if one["person"] not in apart],
        "validation": [one for one in splits["train"] if one["person"] in apart],
        "test": splits["test"],
    }


def _table(content: bytes, width: int) -> np.ndarray:
    rows = [line.split() for line in io.StringIO(content.decode()) if line.strip()]
    short = next((i for i, row in enumerate(rows) if len(row) != width), None)
    if not rows or short is not None:
        raise EOFError(f"row {1 + (short or 0)} has not {width} numbers")
    table = np.array(rows, np.float64)
    if not np.isfinite(table).all():
        raise ValueError("not all of its numbers are finite")
    return table


def folder_examples(paths: Paths) -> Splits:
    files = {path.name: path for found in paths.values() for path in found}

    def find(name: str) -> tuple[Path, bytes]:
        path = files.get(name.rpartition("/")[2])
        if path is None:
            raise DataError(f"{paths['activities'][0].parents[1]} has no {name}")
        return path, read(path)

    return _examples(find)


def zip_examples(paths: Paths) -> Splits:
    (path,) = paths["archive"]
    found = {name.partition(f"{ROOT}/")[2]: content for name, content in members(path)}

    def find(name: str) -> tuple[Path, bytes]:
        if name not in found:
            raise DataError(f"{path} is not what it should be: it has no {ROOT}/{name}")
        return path, found[name]

    return _examples(find)


def _features():
    from seqjax.data.records import tfds

    f = tfds().features
    return {"signals": f.Tensor(shape=(STEPS, len(SIGNALS)), dtype=np.float32),
            "activity": f.ClassLabel(num_classes=6), "person": np.int64}  # fmt: skip


FILES = {
    role: File(f"har/{ROOT}/t*/{pattern}", None, ORIGIN)
    for role, pattern in (("signals", "Inertial Signals/*_t*.txt"), ("activities", "y_t*.txt"),
                          ("persons", "subject_t*.txt"))
}  # fmt: skip
HAR = Dataset(
    "har", "Human activity recognition with smartphones", "Anguita et al. 2013", "CC BY 4.0",
    _features,
    (Layout("folder", FILES, folder_examples),
     Layout("zip", {"archive": File(f"har/{ROOT}.zip", None, ORIGIN)}, zip_examples)),
)  # fmt: skip
