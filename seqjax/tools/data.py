"""`seqjax data`: which datasets there are, what of each is on this machine, and preparing one."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import tyro

from seqjax.data import DATASETS, DataError, data_folder, prepared, prepared_folder
from seqjax.tools.screen import print_json, print_table

Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]


def data(name: Name = "", json: bool = False) -> int:
    """List the datasets, or prepare one and print an example of each split.

    Raw files are looked for in the folder that SEQJAX_DATA names; what is made of them lies where
    tensorflow-datasets keeps its own, which TFDS_DATA_DIR names.

    Args:
        name: of the dataset to prepare; none lists all
        json: print JSON
    """
    if not name:
        _list(json)
        return 0
    found = prepared(name)
    shown = {split: _shown(found.source(split)[0]) for split in found.splits}
    if json:
        print_json({"name": name, "path": str(found.path),
                    "examples": {split: found.size(split) for split in found.splits},
                    "first": shown, "fingerprint": found.fingerprint})  # fmt: skip
        return 0
    print(f"{found.dataset.title} ({found.dataset.reference}), {found.dataset.licence}")
    for split, example in shown.items():
        print(f"\n{split}: {found.size(split)} examples, the first of which is")
        for field, value in example.items():
            print(f"    {field:12}{value}")
    print(f"\nin {found.path}")
    return 0


def _list(json: bool) -> None:
    rows = []
    for name, one in DATASETS.items():
        try:
            layout, _ = one.find()
            raw = layout.name
        except DataError:
            raw = ""
        made = any((prepared_folder() / name).glob("*/*/dataset_info.json"))
        rows.append((name, one.title, raw, "yes" if made else "", one.licence, one.reference))
    columns = ("name", "title", "raw files", "prepared", "licence", "reference")
    if json:
        print_json([dict(zip(columns, row)) for row in rows])
    else:
        print_table(f"Datasets (raw files in {data_folder()}, prepared in {prepared_folder()})",
                    columns, rows)  # fmt: skip


def _shown(example: dict[str, Any]) -> dict[str, str]:
    """Each field in a line: its text, its number, or shape and range of an array."""
    lines = {}
    for field, value in example.items():
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if isinstance(value, str):
            lines[field] = repr(value if len(value) <= 60 else value[:57] + "...")
        elif np.ndim(value) and np.size(value):
            v = np.asarray(value)
            few = ", ".join(f"{one:.4g}" for one in v.ravel()[:6])
            lines[field] = (f"{v.dtype} {list(v.shape)}, from {v.min():.4g} to {v.max():.4g}: "
                            f"{few}{' ...' * (v.size > 6)}")  # fmt: skip
        else:
            lines[field] = str(value)
    return lines
