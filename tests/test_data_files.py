"""Loaders of datasets: made-up files in the published formats, whole and broken."""

import pytest
from made_files import MADE, halves
from made_series import MADE_SERIES
from made_texts import ENDLESS, MADE_TEXTS

from seqjax.data import DATASETS, DataError

WRITERS = MADE | MADE_SERIES | MADE_TEXTS
CASES = list(WRITERS)


def read_all(dataset, layout):
    """How many examples of each split there are."""
    (found,) = (
        paths
        for one in DATASETS[dataset].layouts
        if one.name == layout and (paths := one.find()) is not None and (examples := one.examples)
    )
    return {split: sum(1 for _ in rows) for split, rows in examples(found).items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQJAX_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("dataset, layout", CASES)
def test_files_in_the_published_format_are_read_and_broken_ones_named(dataset, layout, folder):
    counts = WRITERS[dataset, layout](folder)
    assert read_all(dataset, layout) == counts
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        whole = path.read_bytes()
        page, half = b"<!DOCTYPE html><html>not found</html>", halves(whole)
        for content in (b"", page, *([] if (dataset, layout) in ENDLESS else [half])):
            path.write_bytes(content)
            with pytest.raises(DataError) as caught:
                read_all(dataset, layout)
            assert str(path) in str(caught.value), str(caught.value)
            assert len(str(caught.value).splitlines()) == 1
        path.write_bytes(whole)
    assert read_all(dataset, layout) == counts
