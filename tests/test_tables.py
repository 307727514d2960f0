"""`seqjax list` has every row, and looks at none that it need not."""

import json

from seqjax import ops
from seqjax.core.scan import EVALUATORS
from seqjax.tasks import TASKS
from seqjax.tools import tables
from seqjax.tools.cli import main
from seqjax.tools.screen import print_table
from seqjax.zoo import LAYERS


def printed(capsys, *argv):
    assert main(list(argv)) == 0
    return json.loads(capsys.readouterr().out)


def test_list_has_every_row(capsys, monkeypatch):
    look = tables._traced
    monkeypatch.setattr(tables, "_traced", lambda row, priced: look(row, False))
    listed = printed(capsys, "list", "--json")
    names = {kind: [row["name"] for row in rows] for kind, rows in listed.items()}
    assert sorted(names["layers"]) == sorted(LAYERS)
    assert names["ops"] == list(ops.OPS) and names["tasks"] == list(TASKS)
    assert set(names["evaluators"]) == {*EVALUATORS, "newton", "elk", "parallel_backward"}
    for kind in ("layers", "ops", "evaluators", "learners", "tasks"):
        assert all(row["title"] and row["reference"] for row in listed[kind])
    assert all(row.get("transition") for row in listed["layers"])


def test_plain_list_looks_at_no_layer(capsys, monkeypatch):
    monkeypatch.setattr(tables, "_traced", None)
    assert main(["list", "--kind", "layers"]) == 0
    assert "gated_deltanet" in capsys.readouterr().out


def test_json_has_costs(capsys):
    found = printed(capsys, "list", "elman", "--kind", "layers", "--json")["layers"]
    (elman,) = (row["costs"] for row in found if row["name"] == "elman")
    assert (elman["features"], elman["state"], elman["state_bytes"]) == (
        64,
        "hidden or features",
        256,
    )
    assert elman["parameters"] == 64 * 64 + 64 * 64 + 64
    assert 4 * 64 * 64 < elman["flops_per_token"] < 4.2 * 64 * 64
    found = printed(capsys, "list", "rtrl", "--kind", "learners", "--json")["learners"]
    assert found[0]["costs"] == {"exact": "always", "time": "c P", "memory": "n P"}


def names(capsys, *words):
    assert main(["list", *words]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {word for line in lines for word in line}


def test_list_finds_words_and_families(capsys):
    found = names(capsys, "householder", "--kind", "layers")
    assert "deltaproduct" in found and "gru" not in found
    assert {"sgd", "bptt"} & names(capsys, "1604.06174") == {"bptt"}, "in references too"
    found = names(capsys, "GRU", "--family", "classic")
    assert {"gru"} <= found and "min_gru" not in found
    for words, named in (
        (["list", "grx"], "no row has 'grx'; did you mean 'gru'"),
        (["list", "--family", "clasic"], "unknown family 'clasic'; did you mean 'classic'"),
    ):
        assert main(words) == 2
        assert named in capsys.readouterr().err


def test_plain_tables_are_aligned(capsys):
    print_table("t", ("name", "none", "ms"), [("a", "", "1.5"), ("long", "", "20")])
    assert capsys.readouterr().out == "t\nname   ms\na     1.5\nlong   20\n\n"
