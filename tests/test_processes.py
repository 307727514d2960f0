"""Several processes on this machine: the numbers are those of one, and one that ends ends all."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from seqjax.train.checkpoint import Checkpoints
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
    """`seqjax train state_tracking` in several processes, and what they print."""

    def __init__(self, run, *words, count=2, devices=4, each=None):
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
            command = [sys.executable, "-m", "seqjax.tools.cli", "train", "state_tracking",
                       "--run", str(run), *WORDS, *words, *(each or {}).get(index, ())]  # fmt: skip
            if count > 1:
                command += [*joined, "--processes.index", str(index)]
            with log.open("w") as file:
                self.processes.append(subprocess.Popen(
                    command, cwd=run.parent, env=environment, stdout=file, stderr=file
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
