"""`seqjax learners`: exact learners are shown to be exact, and others not."""

import json

import jax
import pytest

from seqjax.tools import agreement as harness


@pytest.mark.share(1)
@pytest.mark.parametrize("form", ["json", pytest.param("table", marks=pytest.mark.thorough)])
def test_the_table(form, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(harness, "RECURRENCES", {"elman": dict(hidden=3)})
    some = ("bptt", "rtrl_sparse", "snap n=1", "rtrl_elementwise")
    monkeypatch.setattr(harness, "WAYS", some)
    figure = tmp_path / "learners.png"
    with jax.enable_x64(False):
        code = harness.agreement(4, figure if form == "table" else None, json=form == "json")
    assert code == 0
    told = capsys.readouterr().out
    if form == "table":
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert "rtrl_elementwise" not in told  # not for this recurrence
        assert told.index("bptt") < told.index("snap n=1")
        return
    rows = {row["learner"]: row for row in json.loads(told)["rows"]}
    assert rows["rtrl_sparse"]["error"] < 1e-5 < rows["snap n=1"]["error"]
    assert rows["rtrl_sparse"]["cosine"] > 0.9999
    assert all(row["microseconds"] > 0 and row["state"] > 0 for row in rows.values())
