"""Weights alone: they come back, from 16 bits where asked, and to the model that they are of."""

import json

import numpy as np
import pytest

from seqjax.train.checkpoint import CheckpointError
from seqjax.train.weights import load, restore, store, stored

ARRAYS = {"a.w": np.float32([[1.5, -2], [0.1, 3]]), "b": np.int32([7]), "c": np.complex64([1 + 2j])}


def test_weights_come_back(tmp_path):
    run, folder = tmp_path / "run", tmp_path / "alone"
    run.mkdir()
    recorded = {"config": {"task": 1}, "data": "", "size": {}, "environment": {"command": ["x"]}}
    (run / "config.json").write_text(json.dumps(recorded))
    assert not stored(run)
    for dtype, exact in (("float32", True), ("float16", False)):
        store(run, folder, 12, ARRAYS, dtype)
        found, step = load(folder)
        assert stored(folder) and step == 12
        assert {n: a.dtype for n, a in found.items()} == {n: a.dtype for n, a in ARRAYS.items()}
        assert (found["a.w"] == ARRAYS["a.w"]).all() == exact
        np.testing.assert_allclose(found["a.w"], ARRAYS["a.w"], 1e-3)
        assert found["b"] == 7 and found["c"] == 1 + 2j
    kept = json.loads((folder / "config.json").read_text())
    assert kept["config"] == {"task": 1} and "environment" not in kept
    wide = {**ARRAYS, "a.w": np.zeros((2, 2), np.float64)}
    assert restore(folder, wide)[0]["a.w"].dtype == np.float64
    for other, name in (({**ARRAYS, "d": ARRAYS["b"]}, "d"), ({**ARRAYS, "b": np.ones(2)}, "b")):
        with pytest.raises(CheckpointError, match=f"of another model: it differs in {name}"):
            restore(folder, other)
