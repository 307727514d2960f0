"""Senseless input: refused in one line that names it, before anything runs."""

import runpy
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from seqjax.core.ranges import Range, check, describe, fits, number
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.tasks import TASKS
from seqjax.tools import cli
from seqjax.tools.options import value
from seqjax.train.config import Config, TaskConfig, check_config
from seqjax.train.step import prepare
from seqjax.zoo import LAYERS, make
from seqjax.zoo.options import NUMBERS, check_options, hints

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "wrong_lines.py"
INT32 = 2**31 - 1
Share, Count = Annotated[float, Range(0, below=1)], Annotated[int, Range(1)]


@pytest.mark.parametrize("hint, right, wrong", [
    (int, [0, -5, INT32, np.int64(3)], [1.0, "1", True, None, 2**31, 10**400]),
    (float, [0.5, 3, -1e300, np.float32(1)], [np.nan, -np.inf, np.inf, "1", False, 10**400]),
    (Share, [0, 0.999], [-1e-9, 1.0, np.nan]),
    (Count, [1, INT32], [0, 2**31, 1.5]),
    (Annotated[float, Range(0, np.inf)], [0, np.inf], [-np.inf, np.nan]),
    (Count | None, [None, 1], [0, "None"]),
    (Annotated[int | None, Range(1, 9)], [None, 9], [10, 0]),
    (Annotated[float, Range(above=0)], [1e-300], [0, -1]),
    (bool, [True, False], [0, 1, "no", None]),
    (Literal["a", "b"], ["a"], ["c", "", None]),
    (Literal["a"] | None, [None, "a"], ["b"]),
    (str, ["", "a"], [1, None]),
    (tuple[Count, ...], [(), (1, 2), [3]], [(0,), (1, "a"), 1, "12"]),
    (tuple[float, float], [(0, 1.5)], [(1.0,), (1, 2, 3), 1]),
    (Annotated[float | Sequence[float], Range(above=0)], [1, (1, 2)], [0, (1, 0)]),
    (Mapping[str, int], [{}], [3, "a"]),
])  # fmt: skip
def test_what_fits(hint, right, wrong):
    for x in right:
        check(x, hint, "x")
        assert fits(x, hint)
    for x in wrong:
        with pytest.raises(ValueError, match="^the field must be .*, got "):
            check(x, hint, "the field")


def test_ranges_in_words():
    assert describe(Count) == f"a whole number from 1 to {INT32}"
    assert describe(Share) == "a number at least 0 and below 1"
    assert describe(Annotated[float, Range(above=0)] | None) == "a number above 0, or None"
    assert describe(Literal["a", "b"] | bool) == "'a' or 'b', or True or False"


def test_text_that_is_no_number_stays_text():
    assert value("3", int) == 3 and value("3e0", float) == 3.0
    assert value("none", Count | None) is None and value("7", Count | None) == 7
    assert value("3.5", int) == "3.5" and value("", float) == "" and value("none", int) == "none"


def numbers():
    """Every number of every config, task and layer: what it is of, annotation and default."""
    for section, cls in typing.get_type_hints(Config).items():
        declared = typing.get_type_hints(cls, include_extras=True)
        for field in fields(cls):
            yield f"{section}.{field.name}", declared[field.name], field.default
    for name, entry in TASKS.items():
        declared = typing.get_type_hints(entry.make, include_extras=True)
        for option, parameter in signature(entry.make).parameters.items():
            yield f"{name}.{option}", declared[option], parameter.default
    for name, entry in LAYERS.items():
        parameters = signature(entry.make.__init__).parameters
        for option, hint in hints(entry.make).items():
            yield f"{name}.{option}", hint, parameters[option].default


def test_every_number_has_a_range_and_a_default_in_it():
    for name, hint, default in numbers():
        if number(hint) and name != "char_lm.seed":
            declared = [one for one in (hint, *typing.get_args(hint))
                        if typing.get_origin(one) is Annotated]  # fmt: skip
            assert declared and fits(default, hint), f"{name}: {hint}, default {default}"


def test_floats_of_layers_stand_in_the_table():
    floats = {option for entry in LAYERS.values()
              for option, hint in hints(entry.make).items() if number(hint) is float}  # fmt: skip
    assert floats == set(NUMBERS)


@pytest.mark.parametrize("words, named", [
    ("train parity --steps -5", "train.steps must be a whole number from 1 to"),
    ("train parity --task.batch 0", "task.batch must be a whole number from 1 to"),
    ("train parity --task.length 0", "task.length must be"),
    ("train parity --task.evaluation-batches 0", "task.evaluation_batches must be"),
    ("train parity --optimiser.learning-rate -1", "optimiser.learning_rate must be a number at"),
    ("train parity --optimiser.learning-rate fast", "at least 0, got 'fast'"),
    ("train parity --tiny --steps 0", "train.steps must be"),
    ("train parity --model.layer gru hidden=0", "option 'hidden' of layer 'gru' must be"),
    ("train parity --model.layer lru r_min=0.9 r_max=0.2", "'lru' must be at most 'r_max'"),
    ("train char_lm --task.options order=no", "order must be 'windows' or 'streams' or 'packed'"),
    ("train parity --run ''", "run must be a path, or None, got ''"),
    ("train parity --stepz 5", "--stepz, 5; did you mean --steps?"),
    ("train parity --task.batch 6 --optimiser.accumulate 4", "accumulate must divide task.batch=6"),
    ("generate nowhere --temperature nan", "temperature must be a number at least 0, got nan"),
    ("generate nowhere --top-p 1.5", "top_p must be a number above 0 and at most 1, or None"),
    ("eval nowhere --batches 0", "batches must be"),
    ("bench --repeats 0", "repeats must be"), ("learners --steps 0", "steps must be"),
    ("explain gru --T 0", "T must be"), ("explain gru --platform abacus", "'cpu' or 'gpu' or"),
    ("explain", "Missing from seqjax explain"), ("list --kind birds", "kind must be 'layers' or"),
])  # fmt: skip
def test_a_wrong_line_is_one_line(words, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([word.strip("'") for word in words.split(" ")]) == 2
    said = capsys.readouterr().err
    assert named in said and said.count("\n") == 1 and said.startswith("seqjax: ")
    assert not list(tmp_path.iterdir())


def test_options_of_layers_are_checked_from_python_too():
    for options, named in ((dict(hidden=0), "'hidden' of layer 'gru'"), (dict(norm=1), "'norm'")):
        with pytest.raises(ValueError, match=named):
            make("gru", 4, **options)
    with pytest.raises(ValueError, match=r"a layer is a name, or \(name, options\), got 3"):
        make("bidirectional", 4, layer=3)
    with pytest.raises(ValueError, match="'hidden' of layer 'gru'"):
        make("stacked", 4, layers=("gru", ("gru", {"hidden": -1})))


PARITY = Config(
    TaskConfig("state_tracking", batch=2, length=4), ModelConfig((LayerConfig("elman"),), 4, 1)
)


@pytest.mark.parametrize("section, changed, named", [
    ("model", dict(evaluator="bogus"), "model.layer elman.*unknown evaluator of elman 'bogus'"),
    ("model", dict(layer=(LayerConfig("gla", {"heads": 3}),)), "model.layer gla heads=3: "),
    ("model", dict(features=10**8), "model.features=100000000 take .* GiB"),
    ("task", dict(length=10**9), "task.length=1000000000 .* GiB"),
    ("task", dict(evaluation_batches=None), "task.evaluation_batches=None"),
    ("task", dict(name="mqar", length=33), "mqar .* even length"),
    ("task", dict(name="char_lm", options={"held_out": 0, "glob": "json/*.py"}), "held_out is 0"),
])  # fmt: skip
def test_what_cannot_run_is_said_before_anything_runs(section, changed, named):
    config = replace(PARITY, **{section: replace(getattr(PARITY, section), **changed)})
    check_config(config)  # each field by itself is in its range
    with pytest.raises(ValueError, match=named):
        prepare(config)


def test_the_parts_of_a_config_are_not_exchanged():
    with pytest.raises(ValueError, match="^task must be a TaskConfig, got a ModelConfig$"):
        check_config(Config(PARITY.model, PARITY.task))  # pyright: ignore[reportArgumentType]


def test_a_share_of_the_wrong_lines():
    """`python scripts/wrong_lines.py` runs all of them."""
    script = runpy.run_path(str(SCRIPT))
    every = list(script["lines"]())
    assert len(every) > 1000
    chosen = script["share_of"](every, 1 / 200)
    with script["without_work"]():
        table = script["check"](chosen, script["outcome"])
        right, wrong = ["list", "--kind", "tasks"], ["parity"]
        sound = [script["Line"]("", words, ("",)) for words in (right, wrong)]
        found = script["check"](sound, script["outcome"], show=False)
    assert found[""] == {"lines": 2, "accepted": 1}  # what is right is told from what is wrong
    assert {kind for kind, counts in table.items() if len(counts) > 1} == set()


def test_experiments_refuse_words_they_do_not_know(monkeypatch, capsys):
    from experiments import words

    monkeypatch.setattr("sys.argv", ["zoo.py", "gru", "gruu"])
    with pytest.raises(SystemExit) as stop:
        words("layer", LAYERS)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "unknown layer 'gruu'; did you mean 'gru'" in said
    with pytest.raises(SystemExit):
        words()
    assert words("layer", ("gru", "gruu")) == ["gru", "gruu"]


def test_the_option_sets_of_rows_are_what_their_options_may_be():
    """Those that the contract is asked of: an option may share its name with one of another row."""
    for name, entry in LAYERS.items():
        for options in (entry.smoke, *entry.variants.values()):
            check_options(name, entry.make, options)
