"""Tasks of time series, music, strokes and sound: what papers have of them, and naive loops."""

import math

import numpy as np
import pytest
from made_files import MADE

from seqjax.data import DATASETS, DataError
from seqjax.data.sets.uea import parse
from seqjax.tasks import make
from seqjax.tasks.uea import whole_series


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Writes the made-up files of a dataset; what is prepared goes beside them."""
    monkeypatch.setenv("SEQJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))

    def write(dataset, layout):
        MADE[dataset, layout](tmp_path)

    return write


def raw(dataset):
    """The examples of the raw files that are here, by split."""
    layout, paths = DATASETS[dataset].find()
    return {split: list(rows) for split, rows in layout.examples(paths).items()}


# -- the archives of UEA and UCR --

SETS = {  # training and test series, channels, fewest and most steps, classes: as published
    "ACSF1": (100, 100, 1, 1460, 1460, 10),
    "ArrowHead": (36, 175, 1, 251, 251, 3),
    "BasicMotions": (40, 40, 6, 100, 100, 4),
    "GunPoint": (50, 150, 1, 150, 150, 2),
    "ItalyPowerDemand": (67, 1029, 1, 24, 24, 2),
    "JapaneseVowels": (270, 370, 12, 7, 29, 9),
    "OSULeaf": (200, 242, 1, 427, 427, 6),
    "PLAID": (537, 537, 1, 100, 1344, 11),
}


@pytest.mark.share(2)
@pytest.mark.parametrize("name", SETS)
def test_sets_are_those_that_the_archives_describe(name):
    found = raw(f"uea_{name.lower()}")
    rows = found["train"] + found["test"]
    (channels,), (classes,) = ({row[field] for row in rows} for field in ("channels", "classes"))
    steps = [len(row["values"]) // channels for row in rows]
    shape = (len(found["train"]), len(found["test"]), channels, min(steps), max(steps), classes)
    assert shape == SETS[name]
    assert {row["label"] for row in rows} == set(range(classes))


def test_a_file_of_series_means_what_it_means_to_aeon():
    text = """
# comments and empty lines

@ProblemName made
@missing true
@classLabel true Left right
@data
1,?,3:-1e-2,5,NaN:right
 4 , 5 : 6,7 : left
"""
    found = parse(text)
    nan = math.nan
    expected = ([[1, -0.01], [nan, 5], [3, nan]], [[4, 6], [5, 7]])
    for values, rows in zip(found.values, expected, strict=True):
        np.testing.assert_array_equal(values, np.array(rows, np.float32))
    assert (found.y, found.classes) == (["right", "left"], ["left", "right"])
    for line, message in (
        ("1,2:3:left", r"line 8 has channels of \[1, 2\] steps"),
        ("1,2", "line 8 has no class"),
        ("1,2:up", "line 8 has the class up"),
        ("1,x:left", "could not convert"),
    ):
        with pytest.raises(ValueError, match=message):
            parse("\n".join([*text.splitlines()[:7], line]))
    for head, message in (
        ("@timeStamps true\n@data", "time stamps"),
        ("@data", "neither @classLabel"),
    ):
        with pytest.raises(ValueError, match=message):
            parse(f"{head}\n1:2\n")


def test_what_is_missing_is_drawn_between_what_is_there():
    nan = math.nan
    x = np.array([[nan, nan, 1], [0, nan, nan], [nan, nan, nan], [3, nan, nan], [nan, nan, 5]])
    example = {"values": x.astype(np.float32).ravel(), "channels": 3}
    expected = [[0, 0, 1], [0, 0, 2], [1.5, 0, 3], [3, 0, 4], [3, 0, 5]]
    np.testing.assert_allclose(whole_series(example), expected, rtol=1e-6)


def test_series_of_an_archive_are_classified(made):
    made("uea_gunpoint", "folder")
    task = make("uea", dataset="GunPoint", held_out="test")
    assert task.spec.inputs.shape == (2,) and task.spec.outputs.count == 2
    assert task.decides["length"] == 4 and len(task.train) == 3 and len(task.apart) == 2
    (batch,) = task.validation(2, 4)
    short = int(np.argmin(batch.present.sum(1)))
    np.testing.assert_array_equal(batch.x[short], [[1, -1], [0, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(batch.present[short], [True, False, False, False])
    assert batch.y[short] == 0 and batch.y[1 - short] == 1
    with pytest.raises(ValueError, match="targets of BIDMC32HR are numbers"):
        make("uea", dataset="BIDMC32HR")
    with pytest.raises(ValueError, match="a set has a name"):
        make("uea", dataset="../GunPoint")
    with pytest.raises(DataError, match="no files of uea_beef"):
        make("uea", dataset="Beef")
