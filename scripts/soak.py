"""Disturb a training run for a long time, and see that nothing is lost and that memory stays.

    python scripts/soak.py --minutes 60 [--processes N]

The same small model is trained twice, with evaluations and checkpoints. One run is left alone. The
other lives for some seconds after its first line of metrics, then gets SIGTERM or SIGKILL, and is
begun again, until the time is over or it has not come to a checkpoint that is compared. In the end
all checkpoints that both keep are compared, and their metrics to the last of these, bit by bit. The
memory of both (VmRSS) is printed over time: from five minutes on, that of the one that is left
alone must not have grown by a tenth between the second and the last quarter of the time.

Runs of several processes have two devices in each. The signal goes to one process, and the others
must end by themselves: after SIGKILL with an error, after SIGTERM with status 0.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

from children import folder_for, start_all, whole_number

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.checkpoint import Checkpoints, fingerprint
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig
from seqjax.train.record import read_metrics

CONFIG = Config(
    TaskConfig("state_tracking", {"group": "S3"}, batch=4, length=8, evaluation_batches=2),
    ModelConfig(layer=(LayerConfig("elman"), LayerConfig("lru")), features=32, depth=2,
                dropout=0.1),
    OptimiserConfig(schedule="constant"),
    TrainConfig(steps=10**9, evaluate_every=70, save_every=30, max_to_keep=2, log_every=20),
)  # fmt: skip


class Watched:
    """A run, and its memory over time."""

    def __init__(self, folder: Path, every: int, count: int):
        config = replace(CONFIG, train=replace(CONFIG.train, keep_every=every))
        self.processes = start_all(config, folder, count)
        self.mib: list[tuple[float, float]] = []  # of all processes together

    def look(self) -> None:
        kib = 0
        for process in self.processes:
            text = Path(f"/proc/{process.pid}/status").read_text()
            assert process.is_alive(), f"the run ended by itself: {process.exitcode}"
            kib += int(text.partition("VmRSS:")[2].split()[0])
        self.mib.append((time.monotonic(), kib / 1024))

    def end(self, number: int, victim: int) -> None:
        several = len(self.processes) > 1
        os.kill(self.processes[victim].pid, number)
        for process in self.processes:
            process.join(60)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()  # one that hangs
        own = codes.pop(victim)
        if number == signal.SIGKILL:
            right = own == -number and all(code not in (None, 0) for code in codes)
        else:  # or a SIGTERM before the loop takes it
            right = own in (0 if several else 128 + number, -number) and None not in codes
        assert right, f"exit codes after signal {number}: {own}, of the others {codes}"


def kept(folder: Path, every: int) -> dict[int, str]:
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        steps = [step for step in checkpoints.steps() if step and step % every == 0]
        return {step: fingerprint(checkpoints.read(step)[0]) for step in steps}


def size(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def lines(folder: Path, step: int) -> list[dict]:
    """The metrics to `step`, but for what a clock has measured."""
    rows = [row for row in read_metrics(folder) if row["step"] <= step]
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


def soak(seconds: float, every: int, count: int, alone: Path, disturbed: Path) -> bool:
    began, random_ = time.monotonic(), random.Random(0)
    calm, lives = Watched(alone, every, count), []
    signals = {signal.SIGTERM: 0, signal.SIGKILL: 0}
    while (left := began + seconds - time.monotonic()) > 0 or not kept(disturbed, every):
        lives.append(Watched(disturbed, every, count))
        before, end = size(disturbed), None
        while end is None or time.monotonic() < end:
            time.sleep(0.2)
            calm.look()
            lives[-1].look()
            if end is None and size(disturbed) > before:
                end = time.monotonic() + min(max(0, left), random_.uniform(0, min(60, seconds / 5)))
        number = random_.choice(list(signals))
        signals[number] += 1
        lives[-1].end(number, random_.randrange(count))
    calm.look()
    calm.end(signal.SIGTERM, 0)
    counts = f"{signals[signal.SIGTERM]} x SIGTERM and {signals[signal.SIGKILL]} x SIGKILL"
    print(f"{time.monotonic() - began:.0f} s, {len(lives)} lives, ended by {counts}")

    grew = print_memory(calm, lives, began, seconds)
    a, b = kept(alone, every), kept(disturbed, every)
    common = sorted(a.keys() & b.keys())
    assert common, f"no step is in both: {list(a)}, {list(b)}"
    same = [a[step] == b[step] for step in common]
    alike = lines(alone, common[-1]) == lines(disturbed, common[-1])
    print(f"{sum(same)} of {len(common)} checkpoints to step {common[-1]} are bitwise those of the "
          f"run that was left alone, and the metrics are{'' if alike else ' NOT'}")  # fmt: skip
    return all(same) and alike and not grew


def print_memory(calm: Watched, lives: list[Watched], began: float, seconds: float) -> bool:
    """A table over tenths of the time; whether it grew."""
    seconds = max(seconds, calm.mib[-1][0] - began)
    print("\nmemory, MiB     left alone    disturbed, at its highest\n   seconds")
    for n in range(10):
        low, high = (began + seconds * tenth / 10 for tenth in (n, n + 1))
        ours = [mib for at, mib in calm.mib if low <= at < high]
        theirs = [max(m for _, m in life.mib) for life in lives if life.mib
                  and low <= life.mib[-1][0] < high]  # fmt: skip
        print(f"{seconds * (n + 1) / 10:10.0f} {mean(ours) if ours else float('nan'):15.1f} "
              f"{max(theirs) if theirs else float('nan'):15.1f}")  # fmt: skip
    quarters = [[mib for at, mib in calm.mib if q / 4 <= (at - began) / seconds < (q + 1) / 4]
                for q in range(4)]  # fmt: skip
    if seconds < 300 or not (quarters[1] and quarters[3]):
        return False  # it has hardly begun
    second, last = median(quarters[1]), median(quarters[3])
    print(f"left alone: {second:.1f} MiB in the second quarter, {last:.1f} in the last\n")
    return last > 1.1 * second


def main(minutes: float, every: int, count: int) -> int:
    with folder_for(count) as name:
        return 0 if soak(60 * minutes, every, count, name / "alone", name / "disturbed") else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=int, default=1000, metavar="STEPS",
                        help="between the checkpoints that are compared")  # fmt: skip
    parser.add_argument("--processes", type=whole_number, default=1, metavar="N", help="of a run")
    given = parser.parse_args()
    sys.exit(main(given.minutes, given.every, given.processes))
