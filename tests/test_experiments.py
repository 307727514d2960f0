"""Every experiment builds, takes two steps, and says what it needs and what it gives."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from experiments import table
from experiments.table import EXPERIMENTS
from seqjax.config import smoke
from seqjax.record import resolved
from seqjax.train import train


@pytest.mark.share(1)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_takes_two_steps(name):
    config = resolved(EXPERIMENTS[name])  # as written: every name and option is known
    result = train(smoke(config))
    assert result.step == 2 and result.reason == "finished"
    assert np.isfinite(result.metrics["loss"])


FILES = sorted(Path(table.__file__).parent.glob("*.py"))
NAMES = [path.stem for path in FILES if path.stem not in ("__init__", "table")]


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_says_what_to_expect(name):
    document = import_module(f"experiments.{name}").__doc__
    heads = [line.split()[0] for line in document.splitlines() if line and line[0].islower()]
    assert [h for h in heads if h in ("command", "hardware", "time", "expected")] == [
        "command", "hardware", "time", "expected",
    ]  # fmt: skip
