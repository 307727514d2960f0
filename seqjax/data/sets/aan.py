"""The ACL Anthology Network as Long Range Arena pairs it (arXiv:2011.04006): does one paper cite
the other, or do both cite a third?

    text1, text2   bytes: the two papers
    label          1: related
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import File, read, reading

ORIGIN = "https://github.com/google-research/long-range-arena"
FILES = {"train": "train", "validation": "eval", "test": "test"}  # names of splits in the release


def read_pairs(path: Path) -> Iterator[Example]:
    """Lines of a label, two names and two texts, between tabs; quotes are letters."""
    lines = read(path).split(b"\n")
    with reading(path, "lines of label, id, id, text and text, between tabs"):
        if lines.pop():
            raise EOFError("its last line does not end")
        for n, line in enumerate(lines, 1):
            fields = line.rstrip(b"\r").split(b"\t")
            if len(fields) != 5:
                raise ValueError(f"line {n} has {len(fields)} fields")
            label = float(fields[0])
            if label not in (0, 1):
                raise ValueError(f"line {n} has the label {label:g}")
            yield {"text1": fields[3], "text2": fields[4], "label": int(label)}


def pairs(paths: Paths) -> Splits:
    return {split: read_pairs(path) for split, (path,) in paths.items()}


def features() -> Mapping[str, Any]:
    from seqjax.data.records import tfds

    f = tfds().features
    return {"text1": f.Text(), "text2": f.Text(), "label": f.ClassLabel(num_classes=2)}


AAN = Dataset(
    "aan", "ACL Anthology Network, pairs", "2011.04006", "not stated", features,
    (Layout("full", {split: File(f"lra_release/tsv_data/new_aan_pairs.{name}.tsv", None, ORIGIN)
                     for split, name in FILES.items()}, pairs),),
)  # fmt: skip
