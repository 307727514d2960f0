"""What the pages on own data and on logging show: a file that trains, metrics sent to stand-ins."""

import csv
import re
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from seqjax.recipes import RECIPES
from seqjax.tasks import TASKS
from seqjax.tools import cli
from seqjax.train.config import Config, LayerConfig, ModelConfig, TaskConfig, TrainConfig
from seqjax.train.loop import train
from seqjax.train.record import read_metrics
from seqjax.zoo import own

DOCS = Path(__file__).resolve().parent.parent / "docs"
SMALL = Config(
    TaskConfig("state_tracking", {"group": "parity"}, batch=2, length=4, evaluation_batches=1),
    ModelConfig(layer=(LayerConfig("min_gru"),), features=4, depth=1),
    train=TrainConfig(steps=2, evaluate_every=1, save_every=2, log_every=1),
)


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_own_data_as_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (example,) = blocks("own_data.md")
    Path("mine.py").write_text(example)
    printed = re.search(r"mine: .* held out", (DOCS / "own_data.md").read_text())
    try:
        assert cli.main(["train", "mine.py", "--tiny", "--run", "run"]) == 0
        assert printed and printed[0] in capsys.readouterr().out
    finally:
        own.BROUGHT.clear()
        TASKS.pop("mine", None)


class Tracker:
    """Of wandb and of mlflow what the page uses."""

    def __init__(self):
        self.lines, self.settings, self.ended, self.summary = [], {}, None, {}

    @contextmanager
    def init(self, *, project, id, resume, config):
        assert (id, resume) == ("run", "allow")
        self.settings = config
        yield self
        self.ended = "finished"

    def define_metric(self, name, *, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, line):
        self.lines.append(line)

    @contextmanager
    def start_run(self, *, run_name):
        assert run_name == "run"
        yield
        self.ended = "finished"

    def log_params(self, settings):
        self.settings |= settings

    def log_metrics(self, metrics, step):
        self.lines.append({"step": step, **metrics})

    def set_tag(self, name, value):
        self.summary[name] = value


@pytest.mark.share(1)
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_metrics_go_elsewhere(tmp_path, monkeypatch, name):
    tracker = Tracker()
    methods = {n: getattr(tracker, n) for n in dir(tracker) if not n.startswith("_")}
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(**methods))
    monkeypatch.setitem(RECIPES, "parity", SMALL)
    monkeypatch.setattr(sys, "argv", ["tracked.py", str(tmp_path / "run")])
    (example,) = [block for block in blocks("logging.md") if f"import {name}" in block]
    exec(compile(example, "tracked.py", "exec"), {"__name__": "__main__"})
    assert tracker.lines == read_metrics(tmp_path / "run") and len(tracker.lines) == 4
    config = asdict(SMALL)
    flat = {f"{section}.{n}": v for section in config for n, v in config[section].items()}
    assert tracker.settings == (config if name == "wandb" else flat)
    assert (tracker.ended, tracker.summary) == ("finished", {"reason": "finished"})
    table = (tmp_path / "run/metrics.csv").read_text()
    rows = [
        {k: float(v) for k, v in row.items() if v} for row in csv.DictReader(table.splitlines())
    ]
    assert rows == tracker.lines


def test_an_error_of_the_logger_ends_the_run_and_leaves_its_metrics(tmp_path):
    def fail(step, metrics):
        if step == 2:
            raise KeyError("no space")

    with pytest.raises(KeyError, match="no space"):
        train(SMALL, tmp_path, logger=fail)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 1, 2]
    table = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len(table) == 4 and table[0].startswith("step,")
