"""A run that is stopped, killed, copied or out of disk: what it leaves is whole, and is ours."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seqjax.core import files
from seqjax.core.common import Notice
from seqjax.core.files import check_figure, write_atomically
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.tasks import make
from seqjax.tasks.task import Generator
from seqjax.train import record
from seqjax.train.checkpoint import PARTIAL, REMOVED, SEAL, CheckpointError, Checkpoints
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig
from seqjax.train.loop import Result, Stop, train
from seqjax.train.record import Record, read_config, read_metrics, write_config
from seqjax.train.trained import load

TINY = Config(
    TaskConfig("state_tracking", {"group": "parity"}, batch=2, length=4, evaluation_batches=2),
    ModelConfig(layer=(LayerConfig("elman"),), features=4, depth=1, dropout=0.1),
    OptimiserConfig(warmup=5),
    TrainConfig(steps=20, evaluate_every=6, save_every=5, log_every=4),
)


# --- the metrics of a run that was stopped


class Killed(BaseException):
    """What a kill leaves undone is undone by this, too; `scripts/kill_test.py` kills for good."""


@pytest.fixture
def interrupt(monkeypatch):
    """interrupt(n, how): at the n-th batch from now, of training or validation."""
    left, draw = [0, None], Generator.__next__
    # what runs in the background of a shell ignores it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def drawn(self):
        left[0] -= 1
        if left[0] == 0:
            if left[1] is Killed:
                raise Killed
            os.kill(os.getpid(), left[1])
        return draw(self)

    monkeypatch.setattr(Generator, "__next__", drawn)

    def at(count, how):
        left[:] = count, how

    yield at
    signal.signal(signal.SIGINT, before)


def lines(run):
    """The lines of metrics, but for what a clock says."""
    rows = (run / "metrics.jsonl").read_text().splitlines()
    clock = ("seconds", "tokens_per_second")
    return [json.dumps({k: v for k, v in json.loads(row).items() if k not in clock})
            for row in rows]  # fmt: skip


@pytest.mark.thorough
def test_metrics_after_stops_are_those_of_a_run_without(interrupt, tmp_path):
    whole = train(TINY, tmp_path / "whole")
    run, reasons = tmp_path / "run", []
    # Counted from the call: two batches to trace with, then those of training; two evaluate.
    for batch, how in (
        (2 + 2, signal.SIGTERM),  # in a window of log_every, before anything was saved
        (2 + 3 + 2, Killed),  # in the evaluation at step 6, which a save at 5 comes before
        (2 + 2 + 1, signal.SIGTERM),  # in that evaluation again, now asked to save
        (2 + 2 + 1, Killed),  # after it was made up for, nothing saved since
        (2 + 2 + 5, signal.SIGINT),
    ):
        interrupt(batch, how)
        try:
            reasons.append(train(TINY, run).reason)
        except Killed:
            reasons.append("killed")
    interrupt(0, None)
    last = train(TINY, run)
    assert reasons == ["SIGTERM", "killed", "SIGTERM", "killed", "SIGINT"]
    assert last.step == 20 and last.metrics == whole.metrics and last.best == whole.best
    assert lines(run) == lines(tmp_path / "whole")


def test_an_evaluation_made_up_for_is_saved(interrupt, tmp_path):
    """A run whose last evaluation was interrupted knows its best step once it was evaluated."""
    config = replace(TINY, train=replace(TINY.train, steps=6, patience=1))
    interrupt(2 + 6 + 1, signal.SIGTERM)
    assert train(config, tmp_path).reason == "SIGTERM"
    assert train(config, tmp_path).best["step"] == 6
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.read(6)[1]["best"]["step"] == 6
    rows = [row["step"] for row in read_metrics(tmp_path) if "validation_loss" in row]
    assert rows == [6]


def test_an_evaluation_that_no_checkpoint_knows_is_not_twice(tmp_path):
    rows = [(5, {"loss": 1.0}), (6, {"loss": 1.0}), (6, {"validation_loss": 2.0})]
    with Record(tmp_path) as record:
        for row in rows:
            record.write(*row)
    with Record(tmp_path, 6, 6):
        assert len(read_metrics(tmp_path)) == 3
    with Record(tmp_path, 6, 0):  # killed before the step was saved again, evaluated
        assert read_metrics(tmp_path) == [{"step": 5, "loss": 1.0}, {"step": 6, "loss": 1.0}]


@pytest.mark.thorough
def test_a_terminal_that_goes_away_saves_and_the_exit_status_is_of_the_signal(tmp_path):
    """SIGHUP comes with a terminal that can no longer be written to."""
    ours, theirs = os.openpty()
    program = (
        "import os, signal, sys; os.open(sys.argv.pop(1), os.O_RDWR); "  # now it is our terminal
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # the tests may run under nohup
        "from seqjax.tools.cli import main; sys.exit(main(sys.argv[1:]"
    )
    command = [
        sys.executable, "-c", program, os.ttyname(theirs), "train", "state_tracking",
        "--run", f"{tmp_path}/run", "--steps", "1000000", "--log-every", "10",
        "--save-every", "1000000", "--evaluate-every", "1000000", "--model.layer", "elman",
        "--model.depth", "1", "--model.features", "8", "--task.length", "4", "--task.batch", "2",
    ]  # fmt: skip
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "XLA_FLAGS": ""}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    ) as child:  # fmt: skip
        os.close(theirs)
        written, give_up = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
        while not (written.exists() and written.stat().st_size) and child.poll() is None:
            if time.monotonic() > give_up:
                child.kill()
                pytest.fail("nothing was logged in 120 s")
            time.sleep(0.05)
        os.close(ours)
        try:
            assert child.wait(60) == 128 + signal.SIGHUP
        finally:
            child.kill()
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] >= 10


@pytest.mark.thorough
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_that_is_disturbed_is_that_which_is_left_alone(processes):
    """`scripts/soak.py`, which takes an hour by itself."""
    script = Path(__file__).resolve().parent.parent / "scripts" / "soak.py"
    command = [sys.executable, str(script), "--minutes", "0.33", "--every", "30"]
    command += ["--processes", processes]
    environment = {**os.environ, "PYTHONPATH": str(script.parent.parent), "XLA_FLAGS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) of (\d+) checkpoints to step \d+ are bitwise .* the metrics are\n",
                      done.stdout)  # fmt: skip
    assert found and found[1] == found[2] != "0"


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.signal == "SIGTERM"
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("reason, status", [
    ("finished", 0), ("patience", 0), ("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129),
])  # fmt: skip
def test_exit_status(reason, status):
    assert Result(None, 0, {}, {}, reason, 0.0).status == status  # type: ignore[arg-type]


# --- the folder of checkpoints


ARRAYS = {"a": np.arange(6.0).reshape(2, 3)}


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(3, ARRAYS, {"n": 3})
    return folder


def test_only_names_of_ours_are_removed(saved):
    foreign = ["30-good", "notes", "007", "8.orbax-checkpoint-tmp", "step_9", "best"]
    ours = [f"4{PARTIAL}", f"5{PARTIAL}.orbax-checkpoint-tmp", f"2{REMOVED}"]
    for name in [*foreign, *ours]:
        shutil.copytree(saved / "3", saved / name)
        (saved / name / SEAL).unlink()
    shutil.copytree(saved / "3", saved / "30-good", dirs_exist_ok=True)  # with its seal
    shutil.copytree(saved / "3", saved / f"7{PARTIAL}")  # killed before it got its name
    (saved / "6.txt").write_text("a note")
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.steps() == [3, 7]
        assert checkpoints.read()[1] == {"n": 3}
        checkpoints.save(8, ARRAYS, {"n": 8})
        checkpoints.save(8, ARRAYS, {"n": 9})  # the same step, another extra
        assert checkpoints.steps() == [7, 8] and checkpoints.read(8)[1] == {"n": 9}
    assert {path.name for path in saved.iterdir()} == {*foreign, "6.txt", "7", "8", "lock"}


def test_a_step_without_its_seal_is_an_error_and_stays(saved):
    shutil.copytree(saved / "3", saved / "5")
    (saved / "5" / SEAL).unlink()
    with pytest.raises(CheckpointError, match=r"5 has no seal.*complete steps are \[3\]"):
        with Checkpoints(saved):
            pass
    with Checkpoints(saved, read_only=True) as checkpoints:
        assert checkpoints.steps() == [3] and checkpoints.read(3)[1] == {"n": 3}
        with pytest.raises(CheckpointError, match="5 has no seal"):
            checkpoints.read()
    (saved / "3" / SEAL).unlink()  # all of them, as a copy without the seals
    with pytest.raises(CheckpointError, match="has no seal"):
        with Checkpoints(saved):
            pass
    assert (saved / "3").is_dir() and (saved / "5").is_dir()


def test_a_model_takes_all_of_its_checkpoint_or_nothing(tmp_path):
    """Also one that has fewer parameters, as where a block had a norm around it once."""
    state = {"params": {"W": np.ones(2), "norm": np.ones(3)}, "moments": {"W": np.ones(2)}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        part = checkpoints.restore({"params": state["params"]})[0]  # the optimiser left out
        np.testing.assert_array_equal(part["params"]["norm"], np.ones(3))
        for params in ({"W": np.ones(2)}, {**state["params"], "head": np.ones(1)}):
            with pytest.raises(CheckpointError, match="of another model: it differs in 1 arrays"):
                checkpoints.restore({"params": params})


# --- files


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    write_atomically(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # a disk of 1000 bytes
    try:
        with pytest.raises(OSError) as caught:
            write_atomically(path, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), Killed()])
def test_what_a_run_rewrites_is_whole_when_writing_fails(tmp_path, monkeypatch, error):
    write_config(tmp_path, TINY)
    with Record(tmp_path) as written:
        for step in range(1, 8):
            written.write(step, {"loss": 1 / step})
    names = ("config.json", "metrics.jsonl", "loss.png")
    old = {name: (tmp_path / name).read_bytes() for name in names}

    def fail(number):
        raise error

    monkeypatch.setattr(files.os, "fsync", fail)
    for write in (
        lambda: write_config(tmp_path, TINY),
        lambda: Record(tmp_path, 3),
        lambda: record.plot(tmp_path),
    ):
        with pytest.raises(type(error)):
            write()
    assert {name: (tmp_path / name).read_bytes() for name in names} == old
    assert not list(tmp_path.glob(".*"))  # nothing half written is left


def test_nothing_is_written_in_place():
    """Files of ours are written by `seqjax.core.files` alone; streams are appended to."""
    root = Path(__file__).resolve().parent.parent
    allowed = {"seqjax/core/files.py", "seqjax/train/imported.py", "seqjax/hf/folder.py"}
    for folder in ("seqjax", "experiments", "scripts"):
        for path in (root / folder).rglob("*.py"):
            name = str(path.relative_to(root))
            found = [word for word in (".write_text(", ".write_bytes(", ".savefig(")
                     if word in path.read_text()]  # fmt: skip
            assert name in allowed or not found, f"{name} writes in place: {found}"


@pytest.mark.parametrize("name, wrong", [
    ("curve.doc", "end in one of"), ("curve", "end in one of"),
    ("none/curve.png", "in a folder that exists"),
])  # fmt: skip
def test_a_figure_that_cannot_be_written_is_refused_before(tmp_path, name, wrong):
    with pytest.raises(ValueError, match=f"figure must .*{wrong}"):
        check_figure(tmp_path / name)


# --- what a folder says of its run


def test_fields_of_another_version_are_named(tmp_path):
    write_config(tmp_path, TINY)
    told = json.loads((tmp_path / "config.json").read_text())
    told["config"]["model"]["wings"] = 2
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.warns(Notice, match="another version: model.wings unknown, and ignored"):
        assert read_config(tmp_path).model.features == 4
    with pytest.raises(ValueError, match="another version: model.wings unknown"):
        write_config(tmp_path, TINY)


@pytest.mark.parametrize("text", ["", "{", "3", "{}", '{"config": {"model": 3}}'])
def test_a_damaged_config_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json is (damaged|not the config of a run)"):
        read_config(tmp_path)


def test_a_damaged_line_of_metrics_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n\0\0\0\n{"step": 2, "lo')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2 is not a line of metrics"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2}]  # a kill cut it short


@pytest.mark.thorough
def test_a_text_that_changed_is_not_gone_on_with(tmp_path):
    text, run = tmp_path / "text", tmp_path / "run"
    text.write_bytes(b"seven little ducks went out one day " * 20)
    task = TaskConfig("char_lm", {"path": str(text)}, batch=1, length=8)
    config = replace(TINY, task=task, train=TrainConfig(steps=2))
    before = make("char_lm", path=str(text)).fingerprint
    train(config, run)
    write_config(run, config, before)
    load(run)
    text.write_bytes(b"seven little ducks went out one DAY " * 20)
    after = make("char_lm", path=str(text)).fingerprint
    assert before != after and make("adding").fingerprint == ""
    with pytest.raises(ValueError, match="the data of .* have changed since the run began"):
        write_config(run, config, after)
    with pytest.warns(Notice, match="the data of .* have changed since it was trained on"):
        load(run)
    with pytest.raises(ValueError, match="the data of .* have changed since the run began"):
        train(config, run)
