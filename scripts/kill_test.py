"""Kill a training run with SIGKILL at random moments, and see that nothing is lost.

    python scripts/kill_test.py [KILLS] [--processes N]

The run saves after every third step, so that many kills fall into a save. After each kill the last
complete checkpoint is read and its hashes checked, and the run goes on from it. In the end its
state and its metrics are compared, bit by bit, with those of a run of as many steps that nobody
killed.

Then as many kills fall into the moment in which config.json or metrics.jsonl is written again, and
at last the disk is full: both files must be as they were.

A run of several processes, of two devices each, is ended by SIGKILL or SIGTERM at one of them. The
others must end by themselves: after a kill with an error, after SIGTERM at one step, with status 0.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from children import context, folder_for, start_all, whole_number

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.checkpoint import SEAL, Checkpoints, fingerprint
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig
from seqjax.train.record import read_config, read_metrics

CONFIG = Config(
    TaskConfig("state_tracking", {"group": "S3"}, batch=4, length=8, evaluation_batches=1),
    ModelConfig(layer=(LayerConfig("elman"),), features=32, depth=2, dropout=0.1),
    OptimiserConfig(schedule="constant"),
    TrainConfig(steps=10**6, evaluate_every=7, save_every=3, max_to_keep=2, log_every=2),
)
FILES = ("config.json", "metrics.jsonl")


def run(folder: str, steps: int, slow: float = 0.0, room: int | None = None) -> None:
    """Train. slow: seconds that a file written again takes; room: bytes a file may have."""
    from rich.console import Console

    from seqjax.core import files
    from seqjax.train.loop import train
    from seqjax.train.progress import Progress

    fsync = files.os.fsync

    def slowly(number: int) -> None:
        time.sleep(slow)
        fsync(number)

    if slow:
        files.os.fsync = slowly
    if room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    with open(os.devnull, "w") as nowhere:
        config = replace(CONFIG, train=replace(CONFIG.train, steps=steps))
        train(config, folder, Progress(steps, Console(file=nowhere)))


def start(*arguments) -> multiprocessing.Process:
    child = context.Process(target=run, args=arguments)
    child.start()
    return child  # type: ignore[return-value]


def kill(child: multiprocessing.Process) -> None:
    assert child.pid and child.is_alive(), "the run ended by itself"
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def last(folder: Path) -> tuple[int, str]:
    """The last complete step, read and checked, and the hash of its arrays."""
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        arrays, extra = checkpoints.read()
    return extra["step"], fingerprint(arrays)


def complete(folder: Path) -> int:
    seals = (folder / "checkpoints").glob(f"*/{SEAL}")
    return max((int(seal.parent.name) for seal in seals if seal.parent.name.isdigit()), default=0)


def lines(folder: Path, step: int) -> list[dict]:
    """The metrics to `step`, but for what a clock says, and an evaluation because it is the end."""
    rows = [row for row in read_metrics(folder) if row["step"] <= step
            and ("loss" in row or row["step"] % CONFIG.train.evaluate_every == 0)]  # fmt: skip
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


def while_running(killed: Path, straight: Path, kills: int) -> bool:
    recovered, saving, step = 0, 0, 0
    for n in range(1, kills + 1):
        child = start(str(killed), CONFIG.train.steps)
        while complete(killed) <= step and child.is_alive():
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.5))
        kill(child)
        names = {path.name for path in (killed / "checkpoints").iterdir()} - {"lock"}
        during = not all(name.isdigit() for name in names)
        before, (step, _) = step, last(killed)
        recovered += step > before
        saving += during
        print(f"kill {n:2}: {'while saving' if during else '            '}  "
              f"last complete step {step}", flush=True)  # fmt: skip
    start(str(straight), step).join()
    same = last(killed) == last(straight)
    alike = lines(killed, step) == lines(straight, step)
    print(f"{kills} kills, {saving} of them while saving: {recovered} recovered; after step {step} "
          f"the state is {'bitwise' if same else 'NOT'} that of a run nobody killed, and the "
          f"metrics are{'' if alike else ' NOT'}")  # fmt: skip
    return recovered == kills and same and alike


def one_of_several(count: int, killed: Path, straight: Path, kills: int) -> bool:
    """As `while_running`, but a signal goes to one process, and the others end by themselves."""
    random_, step = random.Random(0), 0
    table = {(s, w): [0, 0, 0.0] for s in ("SIGKILL", "SIGTERM") for w in ("process 0", "another")}
    for n in range(1, kills + 1):
        kind = "SIGTERM" if n % 4 == 0 else "SIGKILL"
        victim = random_.randrange(count)
        children = start_all(CONFIG, killed, count)
        while complete(killed) <= step and all(child.is_alive() for child in children):
            time.sleep(0.002)
        time.sleep(random_.uniform(0, 0.5))
        assert all(child.is_alive() for child in children), "the run ended by itself"
        began = time.monotonic()
        os.kill(children[victim].pid, signal.Signals[kind])
        for child in children:
            child.join(60)
        took, codes = time.monotonic() - began, [child.exitcode for child in children]
        for child in children:
            child.kill()  # one that hangs
        others = [code for index, code in enumerate(codes) if index != victim]
        ended = all(code == 0 for code in codes) if kind == "SIGTERM" else None not in others
        ended = ended and (kind == "SIGTERM" or all(code != 0 for code in others))
        before, (step, _) = step, last(killed)
        row = table[kind, "another" if victim else "process 0"]
        row[0] += 1
        row[1] += ended and step > before
        row[2] = max(row[2], took)
        print(f"{n:2}: {kind} at process {victim}: all ended after {took:4.1f} s, {codes}; "
              f"last complete step {step}", flush=True)  # fmt: skip
    step, ended = step + 4, True  # what a signal kept from being evaluated is, now
    config = replace(CONFIG, train=replace(CONFIG.train, steps=step))
    for folder in (killed, straight):
        for child in (calm := start_all(config, folder, count)):
            child.join()
        ended &= [child.exitcode for child in calm] == [0] * count
    same = ended and last(killed) == last(straight)
    alike = lines(killed, step) == lines(straight, step)
    print(f"\n{'signal at':25}{'times':>8}{'recovered':>11}{'lost':>6}{'longest end':>13}")
    for (kind, where), (times, recovered, longest) in table.items():
        print(f"{kind:9}{where:16}{times:8}{recovered:11}{times - recovered:6}{longest:11.1f} s")
    print(f"after step {step} the state is {'bitwise' if same else 'NOT'} that of a run nobody "
          f"disturbed, and the metrics are{'' if alike else ' NOT'}")  # fmt: skip
    return same and alike and all(row[0] == row[1] for row in table.values())


def while_rewriting(folder: Path, kills: int) -> bool:
    """Kill in the moment between what was there and what will be; what was there must stay."""
    whole = 0
    for n in range(kills):
        name, step = FILES[n % 2], complete(folder)
        before = read_config(folder), lines(folder, step)
        child = start(str(folder), CONFIG.train.steps, 0.3)
        while not any(folder.glob(f".{name}.*")):
            assert child.is_alive(), "the run ended by itself"
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.2))
        kill(child)
        whole += (read_config(folder), lines(folder, step)) == before
        for left in folder.glob(".*"):
            left.unlink()
    print(f"{kills} kills while {' or '.join(FILES)} was written again: {whole} times as before")
    return whole == kills


def without_room(folder: Path) -> bool:
    """A full disk: files may have 100 bytes, less than any of the two."""
    old = [(folder / name).read_bytes() for name in FILES]
    child = start(str(folder), CONFIG.train.steps, 0.0, 100)
    child.join()
    same = old == [(folder / name).read_bytes() for name in FILES]
    print(f"a full disk: the run {'went on' if child.exitcode == 0 else 'ended'}, and the files "
          f"are {'' if same else 'NOT '}as before")  # fmt: skip
    return same and child.exitcode != 0


def main(kills: int, processes: int) -> int:
    began = time.monotonic()
    with folder_for(processes) as name:
        killed, straight = name / "killed", name / "straight"
        if processes > 1:
            passed = [one_of_several(processes, killed, straight, kills)]
        else:
            passed = [while_running(killed, straight, kills), while_rewriting(killed, kills),
                      without_room(killed)]  # fmt: skip
    print(f"{time.monotonic() - began:.0f} s")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kills", nargs="?", type=whole_number, default=20, metavar="KILLS",
                        help="of each kind, 1 to 1000")  # fmt: skip
    parser.add_argument("--processes", type=whole_number, default=1, metavar="N", help="of the run")
    given = parser.parse_args()
    sys.exit(main(given.kills, given.processes))
