"""`seqjax sweep FILE.py`: configs times seeds, each run in a process and a folder of its own."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from seqjax.core.common import Notice
from seqjax.core.files import write_atomically
from seqjax.core.ranges import Count
from seqjax.tools.curves import METRIC, curves, is_better_low, read_run
from seqjax.tools.jobs import RESULT, Job, changed_since, plan, quiet, state
from seqjax.tools.plot import write
from seqjax.tools.screen import print_table
from seqjax.train.loop import Stop, train
from seqjax.train.record import read_metrics
from seqjax.zoo.own import BROUGHT, bring

PAUSE = 0.1  # seconds between looks at the processes
Start = Callable[[Job, int], subprocess.Popen]


def sweep(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.py")],
    run: Path | None = None,
    workers: Count = 1,
    metric: str = METRIC,
    status: bool = False,
) -> int:
    """Train all configs of FILE.py with all its seeds, and put them in one table.

    FILE.py defines CONFIGS, by name or as a list, or CONFIG and GRID, a dict from fields such as
    "model.features" to values; and SEEDS. The same command goes on where it stopped: what is
    finished is left alone, what failed is tried again. In the folder stand a folder and a log of
    each run, results.csv and sweep.png.

    Args:
        file: what is swept
        run: folder of the sweep; by default runs/FILE
        workers: runs at a time, which share the cores
        metric: by which they are compared, of the last evaluation
        status: how far the sweep is, without going on
    """
    if not str(file).endswith(".py"):
        raise ValueError(f"a sweep is a file, FILE.py, got {str(file)!r}")
    folder = run or Path("runs") / file.stem
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"run must be a folder, and {folder} is a file")
    jobs = plan(file, folder)
    left = [job for job in jobs if state(job) != "finished"]
    if status:
        title = f"{len(jobs) - len(left)} of {len(jobs)} finished, in {folder}"
        lines = [_status(job, metric) for job in jobs]
        print_table(title, ("run", "state", "step", metric), lines)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    if older := sum(changed_since(job, file) for job in jobs):
        text = f"{file} has changed since {older} of the {len(jobs)} runs began"
        warnings.warn(text, Notice, stacklevel=2)
    if len(left) < len(jobs):
        print(f"{len(jobs) - len(left)} of {len(jobs)} runs are finished", flush=True)
    modules = [str(file), *(name for name in BROUGHT if name != str(file.resolve()))]

    def start(job: Job, place: int) -> subprocess.Popen:
        words = [sys.executable, "-m", "seqjax.tools.sweep", str(folder), job.title, *modules]
        with job.log.open("ab") as log, on_cores(place, workers):
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    with Stop() as stop:
        failed = run_all(left, start, workers, stop)
    report(jobs, metric, folder)
    for title, line in failed.items():
        print(f"failed: {title}: {line}")
    if stop.signal:
        print(f"{stop.signal}: stopped, and saved; the same command goes on")
        return 128 + signal.Signals[stop.signal]
    return 1 if failed else 0


def run_all(jobs: Sequence[Job], start: Start, workers: int, stop: Any) -> dict[str, str]:
    """Run `workers` at a time; which failed, and the last line of their logs. One that fails stops
    no other; when `stop.signal` is set all save and end."""
    waiting, failed, stopping, done = list(jobs), {}, False, 0
    running: dict[int, tuple[Job, subprocess.Popen]] = {}  # by their place among the workers
    try:
        while running or (waiting and not stop.signal):
            for place in range(workers):
                if place not in running and waiting and not stop.signal:
                    job = waiting.pop(0)
                    running[place] = job, start(job, place)
            if stop.signal and not stopping:
                stopping = True
                for _, process in running.values():
                    process.terminate()
            time.sleep(PAUSE)
            for place, (job, process) in list(running.items()):
                if process.poll() is not None:
                    del running[place]
                    done += process.returncode == 0
                    if process.returncode and not stop.signal:
                        failed[job.title] = _last_line(job)
                    word = "failed" if process.returncode else "finished"
                    if not stop.signal:
                        print(f"[{done + len(failed)}/{len(jobs)}] {job.title} {word}", flush=True)
    finally:  # at the second Ctrl-C too
        for _, process in running.values():
            process.kill()
    return failed


def one(folder: str, title: str, file: str, *modules: str) -> int:
    """One run of a sweep, in a process of its own."""
    for module in modules:
        bring(module)
    job = next(job for job in plan(Path(file), Path(folder)) if job.title == title)
    result = train(job.config, job.folder)
    if result.status == 0:
        done = {"reason": result.reason, "step": result.step, "seconds": result.seconds}
        write_atomically(job.folder / RESULT, json.dumps({**done, "best": result.best}) + "\n")
    return result.status


def report(jobs: Sequence[Job], metric: str, folder: Path) -> None:
    """The table, sweep.png and results.csv, of the runs that have the metric."""
    rows = [row for job in jobs if (row := _row(job, metric)) is not None]
    if not rows:
        return
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["name"], []).append(row)
    sign = 1 if is_better_low(metric) else -1
    ordered = sorted(groups.items(), key=lambda g: sign * np.mean([r[metric] for r in g[1]]))
    lines = []
    for name, group in ordered:
        values = [row[metric] for row in group]
        deviation = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
        seconds = f"{np.mean([row['seconds'] for row in group]):.0f}"
        shown = f"{np.mean(values):.4g}{deviation}"
        lines.append((name, str(len(values)), shown, str(group[0]["parameters"]), seconds))
    columns = ("", "seeds", f"{metric}, mean ± sd", "parameters", "seconds")
    print_table(f"{folder}, best first", columns, lines)
    text = StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(n for row in rows for n in row)),
                           lineterminator="\n")  # fmt: skip
    table.writeheader()
    table.writerows(rows)
    write_atomically(folder / "results.csv", text.getvalue())
    names = {job.folder: job.name for job in jobs}
    with quiet():
        runs = [read_run(folder / row["run"]) for row in rows]
    found = [replace(c, label=names[c.runs[0].folder]) for c in curves(runs, metric, "steps")]
    write(found, metric, "steps", folder / "sweep.png")
    print(f"in {folder}: results.csv, sweep.png")


def _row(job: Job, metric: str) -> dict[str, Any] | None:
    """Of results.csv: the last value of every validation metric; None before the first."""
    lines = read_metrics(job.folder)
    last: dict[str, Any] = {}
    for line in lines:
        last |= {name: v for name, v in line.items() if name.startswith("validation_")
                 or name in ("seconds", metric)}  # fmt: skip
    if metric not in last:
        return None
    size = json.loads((job.folder / "config.json").read_text()).get("size", {})
    return {"run": job.title, "name": job.name, "seed": job.config.train.seed,
            "state": state(job), "step": int(lines[-1]["step"]), **{"seconds": 0.0, **last},
            **{"parameters": "", **size}}  # fmt: skip


def _status(job: Job, metric: str) -> tuple[str, ...]:
    lines = read_metrics(job.folder)
    value = next((f"{line[metric]:.4g}" for line in reversed(lines) if metric in line), "")
    return job.title, state(job), str(int(lines[-1]["step"])) if lines else "", value


def _last_line(job: Job) -> str:
    lines = job.log.read_text(errors="replace").strip().splitlines() if job.log.exists() else []
    return lines[-1] if lines else "it printed nothing"


@contextmanager
def on_cores(place: int, workers: int) -> Iterator[None]:
    """What is started inside has a worker's share of the cores, and so of XLA's threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    mine = sorted(os.sched_getaffinity(0))
    share = mine[place % len(mine) :: workers]
    try:
        os.sched_setaffinity(0, share)
        yield
    finally:
        os.sched_setaffinity(0, mine)


def _follow(parent: int) -> None:
    """Save and end, as at a SIGTERM, when the sweep is no more: it would begin this run again."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _main(words: Sequence[str]) -> int:
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    try:
        with quiet():
            return one(*words)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, OSError) as error:
        print(f"{type(error).__name__}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
