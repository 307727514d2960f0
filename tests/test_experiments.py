"""Every recipe builds and takes two steps; it and every experiment says what it needs and gives."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import experiments
from experiments import loading
from seqjax import recipes
from seqjax.recipes import RECIPES
from seqjax.train.config import smoke, task_of
from seqjax.train.loop import train
from seqjax.train.record import resolved


@pytest.mark.share(1)
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_two_steps(name):
    config = resolved(RECIPES[name])  # as written: every name and option is known
    result = train(smoke(config))
    assert result.step == 2 and result.reason == "finished"
    assert np.isfinite(result.metrics["loss"])


NAMES = [
    f"{package.__name__}.{path.stem}"
    for package in (experiments, recipes)
    for path in sorted(Path(package.__path__[0]).glob("*.py"))
    if path.stem != "__init__"
]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_to_expect(name):
    document = import_module(name).__doc__
    heads = [line.split()[0] for line in document.splitlines() if line and line[0].islower()]
    assert [h for h in heads if h in ("command", "hardware", "time", "expected")] == [
        "command", "hardware", "time", "expected",
    ]  # fmt: skip


def test_loading_counts_what_is_read_and_taken(monkeypatch):
    calls = []
    monkeypatch.setattr(loading, "BATCHES", 3)
    monkeypatch.setattr(loading, "perf_counter", lambda: 2.0 * len(calls))  # two seconds a call
    assert loading.rate(lambda: calls.append(None), 8) == 3 * 8 / (3 * 2.0) and len(calls) == 5
    monkeypatch.undo()
    monkeypatch.setattr(loading, "BATCHES", 1)
    config = smoke(RECIPES["captions"])
    found = loading.measured(config, task_of(config), workers=0)
    assert len(found) == 4 and min(found) > 0
