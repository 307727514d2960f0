"""`seqjax show`: all of a row, and what its picture is drawn from."""

import json
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.layers.classic.gru import GRU
from seqjax.tasks import from_arrays, make as make_task
from seqjax.tools import pictures
from seqjax.tools.cli import main
from seqjax.tools.samples import sample_lines
from seqjax.tools.sheets import SHEETS, described, rows_of
from seqjax.tools.tables import TABLES
from seqjax.zoo import LAYERS, Entry, make
from seqjax.zoo.meanings import MEANINGS, meaning
from seqjax.zoo.options import hints


def sheet(kind, name, features=64, **options):
    return SHEETS[kind](rows_of(name)[kind], features, options)


def test_every_option_of_a_layer_has_a_meaning_and_no_meaning_is_left_over():
    declared = {(name, option) for name, entry in LAYERS.items() for option in hints(entry.make)}
    without = [f"{name}.{option}" for name, option in declared if not meaning(name, option)]
    assert not without, f"add them to seqjax/zoo/meanings.py: {sorted(without)}"
    known = {f"{name}.{option}" for name, option in declared} | {o for _, o in declared}
    assert not set(MEANINGS) - known


def test_a_layer_is_counted():
    with jax.enable_x64(False):
        gru = sheet("layers", "gru", features=10, hidden=7)
    assert gru["costs"]["parameters"] == 3 * 7 * (10 + 7 + 1)
    assert gru["costs"]["state_bytes"] == 4 * 7 and gru["state"] == ["float32 [7]"]
    products = 2 * 3 * 7 * (10 + 7)
    assert products < gru["costs"]["flops_per_token"] < 1.2 * products
    assert gru["parameters"] == ["U  float32 [21, 7]", "W.bias  float32 [21]",
                                 "W.kernel  float32 [10, 21]"]  # fmt: skip
    options = {one["name"]: one for one in gru["options"]}
    assert options["reset"]["default"] == "before"
    assert options["reset"]["range"] == "after | before"
    assert options["chrono"]["range"] == "a number at least 2, or None"
    assert list(gru["runs"]) == ["nonlinear with dense Jacobian"]
    repeated = sheet("layers", "stacked")["parameters"]
    assert any(re.fullmatch(r"layers.*.U  float.. .192, 64.  x 2", line) for line in repeated)


def test_what_docstrings_say_of_an_option():
    text = "Title.\n\n    b1: a rate,\n      of two lines\n    b2: another\n  rest: no"
    assert described("b1", text) == "a rate, of two lines"
    assert (described("b2", text), described("b", text)) == ("another", "")


def test_every_table_has_sheets():
    assert set(SHEETS) == set(TABLES)


@pytest.mark.share(5)
@pytest.mark.parametrize(
    "kind, name", [(kind, row.name) for kind, rows in TABLES.items() for row in rows()]
)
def test_every_row_has_a_sheet(kind, name):
    found = sheet(kind, name)
    assert found["example"].startswith("seqjax ")
    json.dumps(found)
    if kind in ("layers", "ops"):
        assert found["runs"] and all(found["runs"].values())
        assert "=" in found["equation"] or name in ("latent_attention",)


@pytest.mark.share(1)
@pytest.mark.parametrize("kind, name", [
    ("evaluators", "newton"), ("layers", "gla"), ("optimisers", "lion"), ("tasks", "adding"),
])  # fmt: skip
def test_examples_run(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(sheet(kind, name)["example"])[1:]
    assert main([*words, *(["--tiny"] if words[0] == "train" else [])]) == 0


def test_a_task_without_its_files_has_the_rest_of_its_sheet(tmp_path, monkeypatch, capsys):
    for name in ("SEQJAX_DATA", "TFDS_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    assert main(["show", "word_lm"]) == 0
    printed = capsys.readouterr().out
    assert "no sample: no files of ptb in" in printed and "held_out" in printed


def test_a_sample_can_be_read():
    assert sheet("tasks", "counting", letters=3)["sample"][:2] == [
        "x      a   a   b   b   c   c",
        "y     ab  ab   b   c   c end",
    ]
    copy = sample_lines(make_task("string_copy", letters=4), 12)
    assert copy[0].split() == ["x", *copy[0].split()[1:]] and copy[1].split()[1] == "."
    assert sample_lines(make_task("adding"), 30)[-2].startswith("y    "), "one answer"
    x = np.zeros((3, 2, 4, 4), np.float32)
    x[:, :, :2, :2] = 1
    frames = sample_lines(from_arrays(x, np.array([0.0, 1, 1])), 2)
    assert frames[0] == "x of the steps 0, 1, from 0 to 1"
    assert frames[1:4] == ["@@     @@  ", "           ", frames[3]]


def test_a_name_of_two_tables_is_shown_in_both(capsys):
    assert main(["show", "copy"]) == 0
    printed = capsys.readouterr().out
    assert "copy, of tasks: Copy memory task (1997)" in printed
    assert "copy, of recipes:" in printed and "task.length" in printed
    assert main(["show", "gla", "--json", "--options", "heads=2"]) == 0
    found = json.loads(capsys.readouterr().out)["layers"]
    assert found["state"] == ["float32 [2, 16, 32]"]
    assert found["example"].endswith("--model.layer gla heads=2")


class Mine(GRU):
    """A unit of one's own."""


def test_what_is_not_of_the_package_is_shown_with_where_it_is_from(monkeypatch):
    monkeypatch.setitem(LAYERS, "mine", Entry(Mine, "A unit of one's own", "here"))
    found = sheet("layers", "mine")
    assert found["example"] == ("seqjax train state_tracking --model.layer mine --import test_show")
    assert found["document"].endswith("A unit of one's own.") and found["family"] == "own"


@pytest.mark.parametrize("words, message", [
    (["gruu"], "unknown name 'gruu'; did you mean 'gru'"),
    (["gru", "--options", "hiden=3"], "unknown option of layer 'gru': 'hiden'"),
    (["gla", "--features", "30", "--options", "heads=7"], "features"),
    (["lion", "--options", "heads=2"], "--options are of layers and tasks, and lion is none"),
    (["adding", "--options", "heads=2"], "task adding has no option 'heads'"),
    (["lion", "--figure", "x.png"], "there is no picture of lion"),
    (["gru", "--figure", "x.doc"], "figure must end in one of"),
])  # fmt: skip
def test_a_mistake_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["show", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def program(name, **options):
    layer = make(name, 3, rngs=nnx.Rngs(0), **options)
    return layer, lambda x, h=None: layer(x, h)


def test_the_transition_of_a_diagonal_recurrence_is_its_eigenvalues():
    layer, run = program("lru", state=2)
    J = pictures.transition(run, 3)
    expected = np.asarray(layer.eigenvalues())
    turned = np.block([[np.diag(expected.real), -np.diag(expected.imag)],
                       [np.diag(expected.imag), np.diag(expected.real)]])  # fmt: skip
    np.testing.assert_allclose(J, turned, atol=1e-5)
    assert pictures.transition(program("gau", length=200)[1], 3) is None, "too large to be drawn"


def test_outputs_see_the_past_and_both_ways_where_there_are_two():
    x = jax.random.normal(jax.random.key(0), (1, pictures.SEEN, 3), jnp.float32)
    T = pictures.SEEN
    past, near = np.tri(T, dtype=bool), ~np.tri(T, k=-3, dtype=bool)
    for name, options, expected in (
        ("gru", {}, past),
        ("bidirectional", {}, np.ones((T, T))),
        ("attention", dict(heads=1, window=3), past & near),
    ):
        run = program(name, **options)[1]
        M = pictures._seen(lambda x, run=run: run(x)[0][0], x, axis=1)
        np.testing.assert_array_equal(M > 1e-12, expected)
        np.testing.assert_allclose(M.max(axis=1), 1, rtol=1e-6)


@pytest.mark.share(1)
@pytest.mark.parametrize("name", ["adding", "indrnn", "linear_scan"])
def test_a_picture_is_drawn(name, tmp_path, capsys):
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        assert main(["show", name, "--figure", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.endswith(f"in {tmp_path / 'x.png'}\n")
