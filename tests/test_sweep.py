"""`seqjax sweep`: what it runs, what it leaves alone, and what it puts together."""

import csv
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from seqjax.tools import sweep
from seqjax.tools.cli import main
from seqjax.tools.jobs import Job, plan, state, with_field
from seqjax.train.config import Config, LayerConfig
from seqjax.train.loop import train
from seqjax.train.record import read_metrics
from seqjax.zoo import own

FILE = """
    from seqjax.train.config import Config, LayerConfig, ModelConfig, TaskConfig, TrainConfig

    CONFIG = Config(
        TaskConfig("state_tracking", {"group": "parity"}, batch=2, length=4, evaluation_batches=1),
        ModelConfig(layer=(LayerConfig("elman"),), features=4, depth=1),
        train=TrainConfig(steps=4, evaluate_every=2, save_every=2, log_every=1, seed=7),
    )
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of one's own; `write` makes its file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(more=""):
        own.BROUGHT.clear()
        (tmp_path / "many.py").write_text(textwrap.dedent(FILE) + textwrap.dedent(more))
        return tmp_path / "many.py"

    yield SimpleNamespace(folder=tmp_path, write=write)
    own.BROUGHT.clear()


def test_a_plan_is_configs_times_grid_times_seeds(elsewhere):
    file = elsewhere.write("""
        GRID = {"model.layer": ("gru", LayerConfig("lru", {"state": 8})),
                "optimiser.learning_rate": [0.1, 1e-3]}
        SEEDS = range(2)
    """)
    jobs = plan(file, elsewhere.folder / "all")
    assert [job.title for job in jobs[:3]] == [
        "layer=gru,learning_rate=0.1-0", "layer=gru,learning_rate=0.1-1",
        "layer=gru,learning_rate=0.001-0",
    ]  # fmt: skip
    assert len({job.title for job in jobs}) == len(jobs) == 8
    last = jobs[-1].config
    assert last.model.layer == (LayerConfig("lru", {"state": 8}),)
    assert (last.optimiser.learning_rate, last.train.seed) == (1e-3, 1)
    assert jobs[-1].name == "layer=lru+state=8,learning_rate=0.001"
    pattern = with_field(Config(), "model.layer", ("gru", LayerConfig("lru")))
    assert pattern.model.layer == (LayerConfig("gru"), LayerConfig("lru"))


def test_configs_by_name_or_in_a_list_have_their_own_seeds(elsewhere):
    for more, names in (
        ("CONFIGS = {'a b': CONFIG, 'c': CONFIG}", ["a_b-7", "c-7"]),
        ("CONFIGS = [CONFIG, CONFIG]", ["0-7", "1-7"]),
        ("", ["many-7"]),
    ):
        assert [job.title for job in plan(elsewhere.write(more), elsewhere.folder)] == names


@pytest.mark.parametrize("more, message", [
    ("CONFIGS = 3", "many.py must define CONFIGS, configs by name or a list of them, or CONFIG"),
    ("CONFIG = None", "many.py must define CONFIGS"),
    ("CONFIGS = []", "many.py defines no runs"),
    ("SEEDS = 3", "SEEDS must be numbers, as 0, 1, 2, got 3"),
    ("SEEDS = (0, 0)", "defines two runs named many-0"),
    ("SEEDS = (-1,)", "a seed of SEEDS must be a whole number from 0"),
    ("GRID = {'model.feature': (1, 2)}", "unknown field of GRID: 'model.feature'; did you mean "),
    ("GRID = {'model.features': 3}", "GRID must be fields with the values of each"),
    ("GRID = {'model.layer': ('gruu',)}", "layer=gruu: unknown layer 'gruu'; did you mean"),
    ("GRID = {'model.features': (8, 0)}", "features=0: model.features must be a whole number"),
])  # fmt: skip
def test_a_mistake_is_one_line(elsewhere, more, message, capsys):
    elsewhere.write(f"\n{more}\n")
    before = sorted(elsewhere.folder.rglob("*.*"))
    assert main(["sweep", "many.py"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path for path in sorted(elsewhere.folder.rglob("*.*"))] == before
    assert not (elsewhere.folder / "runs").exists()


def processes(programs, folder):
    """Jobs, and a `start` that runs these programs in their place."""
    jobs = [Job(name, Config(), folder / name) for name in programs]
    running, most = [], []

    def start(job, place):
        running[:] = [process for process in running if process.poll() is None]
        with job.log.open("wb") as log:
            program = textwrap.dedent(programs[job.name])
            process = subprocess.Popen([sys.executable, "-c", program], stdout=log, cwd=folder)
        running.append(process)
        most.append((len(running), place))
        return process

    return jobs, start, most


def test_one_that_fails_stops_no_other(tmp_path, capsys):
    jobs, start, most = processes({
        "a": "open('a.txt', 'w')", "b": "print('first'); print('why'); raise SystemExit(3)",
        "c": "open('c.txt', 'w')", "d": "raise SystemExit(1)",
    }, tmp_path)  # fmt: skip
    failed = sweep.run_all(jobs, start, 2, SimpleNamespace(signal=None))
    assert failed == {
        "b": "why", "d": "it printed nothing",
    }  # fmt: skip
    assert (tmp_path / "a.txt").exists() and (tmp_path / "c.txt").exists()
    assert max(n for n, _ in most) == 2 and {place for _, place in most} == {0, 1}
    assert "[4/4]" in capsys.readouterr().out


def test_a_signal_stops_all_and_lets_them_save(tmp_path):
    program = """
        import signal, sys, time
        def save(*_):
            open("saved", "w")
            sys.exit(143)
        signal.signal(signal.SIGTERM, save)
        open("began", "w")
        time.sleep(60)
    """
    jobs, start, _ = processes({"a": program, "b": "open('never', 'w')"}, tmp_path)

    class Stop:
        @property
        def signal(self):
            return "SIGINT" if (tmp_path / "began").exists() else None

    began = time.monotonic()
    assert sweep.run_all(jobs, start, 1, Stop()) == {}, "to be stopped is no failure"
    assert (tmp_path / "saved").exists() and not (tmp_path / "never").exists()
    assert time.monotonic() - began < 30


@pytest.fixture
def here(monkeypatch):
    """Runs in this process, as many as are allowed."""
    allowed = [9]

    def run_all(jobs, start, workers, stop):
        for job in jobs[: allowed[0]]:
            assert sweep.one(str(job.folder.parent), job.title, "many.py") == 0
        return {}

    monkeypatch.setattr(sweep, "run_all", run_all)
    return allowed


@pytest.mark.filterwarnings("always::seqjax.core.common.Notice")
def test_a_sweep_goes_on_where_it_stopped(elsewhere, here, capsys):
    file, folder = elsewhere.write("SEEDS = 0, 1, 2"), elsewhere.folder / "runs" / "many"
    here[0] = 1
    assert main(["sweep", "many.py"]) == 0
    first, second, third = plan(file, folder)
    train(replace(second.config, train=replace(second.config.train, steps=2)), second.folder)
    assert [state(job) for job in (first, second, third)] == ["finished", "stopped", "waiting"]
    capsys.readouterr()
    assert main(["sweep", "many.py", "--status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 of 3 finished, in runs/many"
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["many-0", "finished"], ["many-1", "stopped"], ["many-2", "waiting"],
    ]  # fmt: skip
    before = (first.folder / "result.json").stat().st_mtime_ns
    here[0] = 9
    assert main(["sweep", "many.py"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 3 runs are finished" in printed and "going on from step 2" in printed
    assert (first.folder / "result.json").stat().st_mtime_ns == before

    losses = [read_metrics(job.folder)[-1]["validation_loss"] for job in (first, second, third)]
    with (folder / "results.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["run"] for row in rows] == ["many-0", "many-1", "many-2"]
    assert [float(row["validation_loss"]) for row in rows] == losses
    assert {row["state"] for row in rows} == {"finished"}
    assert f"{np.mean(losses):.4g} ± {np.std(losses, ddof=1):.2g}" in printed
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")

    elsewhere.write("SEEDS = 0, 1, 2\nGRID = {}\nCONFIG.model.__dict__['features'] = 8\n")
    assert main(["sweep", "many.py", "--status"]) == 2
    assert "many-0 holds another run, which differs in model.features" in capsys.readouterr().err
    elsewhere.write("SEEDS = 0, 1, 2  # as before")
    assert main(["sweep", "many.py"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "seqjax: many.py has changed since 3 of the 3 runs began"


def test_the_best_comes_first(elsewhere, here, capsys):
    elsewhere.write("CONFIGS = {'slow': CONFIG, 'fast': CONFIG}\nSEEDS = 0,\n"
                    "GRID = {'optimiser.learning_rate': (0.0, 0.1)}")  # fmt: skip
    jobs = plan(elsewhere.folder / "many.py", elsewhere.folder / "runs" / "many")
    from test_plot import a_run

    for job, loss in zip(jobs, (3.0, 1.0, 2.0, 4.0), strict=True):
        a_run(job.folder, job.config, values=(9.0, 8.0, loss))
    sweep.report(jobs, "validation_loss", jobs[0].folder.parent)
    lines = capsys.readouterr().out.splitlines()[2:6]
    assert [line.split()[2] for line in lines] == ["1", "2", "3", "4"]


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_real_processes_are_stopped_and_go_on(elsewhere, number):
    elsewhere.write("GRID = {'train.steps': (400, 4)}\nSEEDS = 0, 1\n")
    words = [sys.executable, "-m", "seqjax.tools.cli", "sweep", "many.py"]
    process = subprocess.Popen([*words, "--workers", "2"], stdout=subprocess.PIPE, text=True)
    both = [elsewhere.folder / f"runs/many/steps=400-{n}" for n in (0, 1)]
    until = time.monotonic() + 300
    while not all("validation_loss" in "".join(map(str, read_metrics(one))) for one in both):
        assert time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=300)
    own.BROUGHT.clear()
    jobs = plan(elsewhere.folder / "many.py", elsewhere.folder / "runs" / "many")
    if number == signal.SIGTERM:
        assert process.returncode == 128 + number and "the same command goes on" in out
    while not all("saved step" in job.log.read_text() for job in jobs[:2]):
        assert time.monotonic() < until, "runs go on without their sweep"
        time.sleep(0.1)
    assert [state(job) for job in jobs] == ["stopped", "stopped", "waiting", "waiting"]
    assert "SIGTERM: saved step" in jobs[0].log.read_text()
    done = subprocess.run([*words, "--workers", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "going on from step" in jobs[0].log.read_text()
    assert [state(job) for job in jobs] == ["finished"] * 4
