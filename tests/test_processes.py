"""Several processes on this machine: the numbers are those of one, and one that ends ends all."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.checkpoint import Checkpoints
from seqjax.train.config import Config, MeshConfig, TaskConfig, TrainConfig
from seqjax.train.loop import train
from seqjax.train.processes import Processes
from seqjax.train.progress import Progress
from seqjax.train.record import read_config, read_metrics

ROOT = Path(__file__).resolve().parent.parent
WORDS = [
    *("--task.batch", "4", "--task.length", "8", "--task.evaluation-batches", "1"),
    *("--model.features", "8", "--model.depth", "1", "--model.layer", "elman"),
    *("--model.dropout", "0.2", "--evaluate-every", "2", "--log-every", "1", "--save-every", "1"),
]


class Job:
    """`seqjax train state_tracking` in several processes, and what they print.

    command: in place of it.
    """

    def __init__(self, run, *words, count=2, devices=4, each=None, command=None):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        flags = re.sub(r"device_count=\d+", f"device_count={devices // count}",
                       os.environ["XLA_FLAGS"])  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags,
                       "JAX_ENABLE_X64": "1"}  # fmt: skip
        joined = ["--processes.coordinator", f"localhost:{port}", "--processes.count", str(count)]
        self.logs = [run.parent / f"{run.name}.{index}.log" for index in range(count)]
        self.processes = []
        for index, log in enumerate(self.logs):
            given = command or ["train", "state_tracking", "--run", str(run), *WORDS]
            given = [sys.executable, "-m", "seqjax.tools.cli", *given, *words]
            if count > 1:
                given += [*joined, "--processes.index", str(index)]
            given += (each or {}).get(index, ())
            with log.open("w") as file:
                self.processes.append(subprocess.Popen(
                    given, cwd=run.parent, env=environment, stdout=file, stderr=file
                ))  # fmt: skip

    def end(self, seconds=120):
        """The exit statuses."""
        until = time.monotonic() + seconds
        try:
            return [one.wait(max(1, until - time.monotonic())) for one in self.processes]
        finally:
            for one in self.processes:
                one.kill()

    def lines(self, index):
        """What a process printed, but for the lines of jax and gloo."""
        lines = self.logs[index].read_text().splitlines()
        return [line for line in lines if "[Gloo]" not in line and not re.match("[EWF][0-9]", line)]


def numbers(run):
    rows = read_metrics(run)
    return [[v for n, v in row.items() if "second" not in n] for row in rows]


def state(run, step=None):
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.read(step)


def alike(run, other, rtol=2e-5):
    for a, b in zip(numbers(run), numbers(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol)
    (arrays, extra), (others, extra_too) = state(run), state(other)
    assert extra["data"] == extra_too["data"] and arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(array, others[name], rtol=rtol, atol=1e-6, err_msg=name)


def in_one_process(run):
    """The same run, here, on as many devices."""
    train(read_config(run), alone := run.with_name("alone"), silent())
    return alone


def silent():
    return Progress(0, Console(quiet=True))


def test_two_processes_have_the_numbers_of_one(tmp_path):
    """Dropout, an evaluation and a checkpoint of all included; the first one alone prints."""
    words = "--steps", "2", "--mesh.data", "2", "--mesh.fsdp", "2"
    job = Job(run := tmp_path / "two", *words)
    assert job.end() == [0, 0], [job.lines(0), job.lines(1)]
    alike(run, in_one_process(run))
    assert "finished after step 2" in job.logs[0].read_text() and not job.lines(1)
    assert len([*run.glob("events*")]) == 1


def test_what_is_no_job_is_one_error(monkeypatch):
    for given, error in (
        (Processes(2, 2, "a:1"), "processes.index must be below processes.count=2, got 2"),
        (Processes(2, 1), "several processes need processes.coordinator too"),
        (Processes(2, 1, "a"), "processes.coordinator must be HOST:PORT, got 'a'"),
    ):
        with pytest.raises(ValueError, match=error):
            given.filled()
    monkeypatch.setenv("JAX_NUM_PROCESSES", "3")
    monkeypatch.setenv("JAX_PROCESS_ID", "2")
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "a:1")
    assert Processes().filled() == Processes(3, 2, "a:1")
    assert Processes(4, 3).filled() == Processes(4, 3, "a:1")  # what is given goes first
    monkeypatch.setenv("JAX_PROCESS_ID", "one")
    with pytest.raises(ValueError, match="JAX_PROCESS_ID must be a whole number, got 'one'"):
        Processes().filled()


def until(job, run, step):
    """Wait for a checkpoint of this step, or of a later one."""
    folder, give_up = run / "checkpoints", time.monotonic() + 120
    while not any(p.name.isdigit() and int(p.name) >= step for p in folder.glob("*")):
        assert time.monotonic() < give_up, [job.lines(0), job.lines(1)]
        assert all(one.poll() is None for one in job.processes), [job.lines(0), job.lines(1)]
        time.sleep(0.05)


LONG = "--steps", "1000000", "--mesh.data", "4", "--optimiser.schedule", "constant"


def goes_on(run, *words):
    """To three steps after its last checkpoint, bitwise as two processes that nobody disturbed."""
    last = max(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())
    words = *LONG, "--steps", str(last + 3)
    assert Job(run, *words).end() == [0, 0]
    assert Job(calm := run.with_name("calm"), *words).end() == [0, 0]
    alike(run, calm, rtol=0)


@pytest.mark.thorough
@pytest.mark.parametrize("index", [0, 1])
def test_a_signal_at_one_process_ends_all_after_the_same_step(tmp_path, index):
    job = Job(run := tmp_path / "run", *LONG)
    until(job, run, 3)
    job.processes[index].send_signal(signal.SIGTERM)
    assert job.end() == [0, 0], [job.lines(0), job.lines(1)]
    (saved,) = re.findall(r"SIGTERM: saved step (\d+) in", job.logs[0].read_text())
    assert state(run)[1]["step"] == int(saved) and not job.lines(1)
    goes_on(run)


@pytest.mark.thorough
@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_is_killed_ends_the_others(tmp_path, index):
    job = Job(run := tmp_path / "run", *LONG)
    until(job, run, 3)
    job.processes[index].kill()
    statuses = job.end(60)
    assert statuses[index] == -signal.SIGKILL and statuses[1 - index] == 1, statuses
    (line,) = [one for one in job.lines(1 - index) if one.startswith("seqjax: ")]
    assert re.fullmatch(
        r"seqjax: process \d of 2: (process 1 has given no sign of life for 20 s|"
        r"process 0, the coordinator, has ended|another process may have ended: .*)", line
    )  # fmt: skip
    goes_on(run)


@pytest.mark.thorough
def test_a_run_goes_on_in_another_number_of_processes(tmp_path):
    run, mesh = tmp_path / "run", ("--optimiser.schedule", "constant", "--mesh.fsdp")
    for steps, count, words in ((2, 2, ("4",)), (4, 4, ("2", "--mesh.data", "2"))):
        job = Job(run, "--steps", str(steps), *mesh, *words, count=count)
        assert job.end() == [0] * count, [job.lines(n) for n in range(count)]
    whole = in_one_process(run)  # all four steps
    config = read_config(run)
    here = replace(config, train=replace(config.train, steps=6), mesh=MeshConfig(tensor=4))
    for folder in (run, whole):
        train(here, folder, silent())
    alike(run, whole)


@pytest.mark.thorough
@pytest.mark.parametrize("each, error", [
    ({1: ("--model.features", "16")},
     "each process needs the same config: that of process 1 differs .* in model.features"),
    ({0: ("--mesh.data", "2"), 1: ("--mesh.data", "2")},
     "mesh data=2, fsdp=1, tensor=1, sequence=1 takes 2 devices, and 2 processes have 4"),
    ({1: ("--processes.count", "3")}, "processes.count must be that of process 0, 2, got 3"),
])  # fmt: skip
def test_a_mistake_is_one_line_in_each_process(tmp_path, each, error):
    job = Job(tmp_path / "run", "--steps", "2", "--mesh.data", "4", each=each)
    assert all(status in (1, 2) for status in job.end(60))
    for index in (0, 1):
        (line,) = job.lines(index)
        assert re.search(error, line)
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
@pytest.mark.parametrize("index, error", [
    (0, "not all of the 2 processes came"), (1, "process 0 is not there"),
])  # fmt: skip
def test_a_process_that_nobody_joins_ends(tmp_path, index, error):
    waits = "--processes.timeout", "3"
    job = Job(tmp_path / "run", "--steps", "2", "--mesh.data", "4", *waits)
    job.processes[1 - index].kill()
    assert job.end(60)[index] == 2
    assert error in job.lines(index)[0]


@pytest.mark.thorough
def test_a_model_is_used_by_processes(tmp_path):
    """Evaluated, and it writes: what one prints, printed once."""
    known = dict(task=TaskConfig("char_lm", batch=4, length=8, evaluation_batches=1))
    sizes = ModelConfig(features=8, depth=1, layer=(LayerConfig("min_gru"),))
    train(
        Config(**known, model=sizes, train=TrainConfig(steps=2, evaluate_every=2)), tmp_path / "run"
    )
    for command in (["eval"], ["generate", "--prompt", "a", "bc", "--length", "9"]):
        command.insert(1, str(tmp_path / "run"))
        alone = Job(tmp_path / "alone", count=1, command=command)
        both = Job(tmp_path / "both", "--mesh.fsdp", "4", command=command)
        assert alone.end() == [0] and both.end() == [0, 0]
        assert both.lines(0) == alone.lines(0) != [] == both.lines(1)


@pytest.mark.thorough
def test_processes_are_killed_and_stopped_many_times():
    """`scripts/kill_test.py`, which takes longer by itself."""
    script = ROOT / "scripts" / "kill_test.py"
    command = [sys.executable, str(script), "4", "--processes", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the state is bitwise that of a run nobody disturbed" in done.stdout
