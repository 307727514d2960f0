"""Sepsis in intensive care, PhysioNet's challenge of 2019 (Reyna et al. 2020): hours of patients.

    values  float32 [34 T], what was measured in each hour, row by row; NaN where nothing was
    static  float32 [5]: age, gender, two units, hours from admission; NaN where unknown
    hours   int64 [T], of the stay, rising
    sepsis  int64 [T], 1 from six hours before its onset

One split, of all patients of both hospitals: the challenge kept its test patients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import DataError, File, members, read, reading

ORIGIN = "https://physionet.org/content/challenge-2019"
MEASURED = (
    "HR", "O2Sat", "Temp", "SBP", "MAP", "DBP", "Resp", "EtCO2", "BaseExcess", "HCO3", "FiO2",
    "pH", "PaCO2", "SaO2", "AST", "BUN", "Alkalinephos", "Calcium", "Chloride", "Creatinine",
    "Bilirubin_direct", "Glucose", "Lactate", "Magnesium", "Phosphate", "Potassium",
    "Bilirubin_total", "TroponinI", "Hct", "Hgb", "PTT", "WBC", "Fibrinogen", "Platelets",
)  # fmt: skip
STATIC = ("Age", "Gender", "Unit1", "Unit2", "HospAdmTime")
COLUMNS = (*MEASURED, *STATIC, "ICULOS", "SepsisLabel")
HOSPITALS = ("A", "B")


def patient(content: bytes) -> Example:
    """What a .psv file has: a head of names, and a row for each hour. Raises ValueError."""
    head, *lines = content.decode().splitlines()
    if tuple(head.strip().split("|")) != COLUMNS:
        raise ValueError(f"its columns are {head[:40]!r} .. and not {'|'.join(COLUMNS[:3])} ..")
    rows = [line.split("|") for line in lines if line.strip()]
    short = next((i for i, row in enumerate(rows) if len(row) != len(COLUMNS)), None)
    if not rows or short is not None:
        raise EOFError(f"it ends, or is of another width, at row {short or len(rows)}")
    table = np.array(rows, np.float64)
    hours, sepsis = table[:, -2], table[:, -1]
    if not (np.diff(hours) > 0).all() or not np.isin(sepsis, (0, 1)).all():
        raise ValueError("its hours do not rise, or its labels are not 0 and 1")
    return {
        "values": table[:, : len(MEASURED)].astype(np.float32).reshape(-1),
        "static": table[0, len(MEASURED) : -2].astype(np.float32),
        "hours": hours.astype(np.int64),
        "sepsis": sepsis.astype(np.int64),
    }


def _patients(files: Iterable[tuple[Path, str, bytes]]) -> Iterator[Example]:
    for path, name, content in files:
        with reading(path, f"hours of a patient, {name}"):
            yield patient(content)


def folder_examples(paths: Paths) -> Splits:
    files = ((path, path.name, read(path)) for role in HOSPITALS for path in paths[role])
    return {"patients": _patients(files)}


def zip_examples(paths: Paths) -> Splits:
    return {"patients": _patients(chain.from_iterable(_zipped(paths[role][0])
                                                      for role in HOSPITALS))}  # fmt: skip


def _zipped(path: Path) -> Iterator[tuple[Path, str, bytes]]:
    count = 0
    for name, content in members(path):
        if PurePosixPath(name).suffix == ".psv":
            count += 1
            yield path, name, content
    if not count:
        raise DataError(f"{path} is not what it should be: it has no .psv file")


def _features():
    from seqjax.data.records import tfds

    f = tfds().features
    arrays = {"values": np.float32, "hours": np.int64, "sepsis": np.int64}
    return {
        "static": f.Tensor(shape=(len(STATIC),), dtype=np.float32),
        **{name: f.Tensor(shape=(None,), dtype=dtype) for name, dtype in arrays.items()},
    }


def _files(pattern: str) -> dict[str, File]:
    return {role: File(f"physionet2019/{pattern.format(role)}", None, ORIGIN)
            for role in HOSPITALS}  # fmt: skip


SEPSIS = Dataset(
    "physionet_sepsis", "PhysioNet 2019: sepsis in intensive care", "Reyna et al. 2020",
    "CC BY 4.0", _features,
    (Layout("folders", _files("training_set{}/*.psv"), folder_examples),
     Layout("zips", _files("training_set{}.zip"), zip_examples)),
)  # fmt: skip
