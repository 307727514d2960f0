"""Command lines that are wrong: every one must be refused, in one line, before anything runs.

    python scripts/wrong_lines.py [--share SHARE] [--processes COUNT]

The lines are made from what is declared: every field of a config, every option of every task,
layer and command with values outside its range and of the wrong kind, names with a letter missing,
values missing, files missing, sizes that do not go together. Each is run in this process, up to the
point where work would begin; COUNT of them as real processes too. A line passes if its exit status
is 2, its message is one line that names what is wrong, and no file or folder was made. Exit status
1 if a line does not pass.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import typing
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
VALUES = ("-1", "0", "-0.5", "1.5", "2", "nan", "inf", "-inf", "abc", "", "None", "no", "1e400",
          "1" + 20 * "0", "(1,2)", "[1")  # fmt: skip
OUTCOMES = ("traceback", "late death", "accepted", "other status", "not one line", "names nothing")


class Line(NamedTuple):
    kind: str
    words: list[str]  # of the command line, after `seqjax`
    named: tuple[str, ...]  # of which the message must have one


class Accepted(BaseException):
    """Work would begin."""


# --- the lines


def lines() -> Iterator[Line]:
    yield from config_fields()
    yield from options_of_tasks()
    yield from options_of_layers()
    yield from options_of_commands()
    yield from names()
    yield from together()


def config_fields() -> Iterator[Line]:
    from seqjax.core.ranges import fits
    from seqjax.tools.options import value
    from seqjax.train.config import Config

    sections = typing.get_type_hints(Config)
    for section, cls in sections.items():
        hints = typing.get_type_hints(cls, include_extras=True)
        prefix = "" if section == "train" else f"{section}."
        for n, field in enumerate(fields(cls)):
            hint, flag = hints[field.name], f"--{prefix}{field.name}".replace("_", "-")
            if hint is bool:
                yield Line("flags", ["train", "parity", flag, "maybe"], ("maybe",))
                continue
            if field.name in ("options", "layer", "encoder", "freeze", "best_by"):
                continue
            if field.name in ("name", "evaluator"):
                wrong: list[str] = ["bogus", ""]
            else:
                wrong = [text for text in VALUES if not fits(value(text, hint), hint)]
            name = "no task" if field.name == "name" else field.name
            for text in wrong:
                yield Line("config", ["train", "parity", flag, text], (name,))
            yield Line("config, tiny", ["train", "copy", "--tiny", flag, wrong[0]], (name,))
            yield Line("no value", ["train", "parity", flag], (flag,))
            typo = flag[:-2] + flag[-1]
            yield Line("typos", ["train", "parity", typo, "1"], (typo,))
            other = f"--{'optimiser.beta1' if n % 2 else 'task.batch'}"
            two = ["train", "mqar", flag, wrong[-1], other, "-3"]
            yield Line("two at once", two, (name, "beta1", "batch"))


def options_of_tasks() -> Iterator[Line]:
    from seqjax.core.ranges import fits, parse_value
    from seqjax.tasks import TASKS

    for name, entry in TASKS.items():
        hints = typing.get_type_hints(entry.make, include_extras=True)
        for option in signature(entry.make).parameters:
            start = ["train", name, "--task.options"]
            for text in VALUES:
                if not fits(parse_value(text), hints[option]):
                    yield Line("tasks", [*start, f"{option}={text}"], (option,))
            yield Line("tasks", [*start, f"{option[:-1]}=1"], (f"'{option[:-1]}'",))
            yield Line("tasks", [*start, option], (option,))
    for group in ("S6", "parity2", "None"):
        yield Line("tasks", ["train", "parity", "--task.options", f"group={group}"], ("group",))


def options_of_layers() -> Iterator[Line]:
    from seqjax.core.ranges import fits, parse_value
    from seqjax.zoo import LAYERS
    from seqjax.zoo.options import hints

    for n, (name, entry) in enumerate(LAYERS.items()):
        start = ["train", "state_tracking", "--model.layer", name]
        for m, (option, hint) in enumerate(hints(entry.make).items()):
            wrong = [text for text in VALUES if not fits(parse_value(text), hint)]
            for text in wrong[(n + m) % 5 :: 5]:
                yield Line("layers", [*start, f"{option}={text}"], (option,))
            if hint.__origin__ is str and (n + m) % 3 == 0:  # one of some names
                yield Line("choices", [*start, f"{option}=bogus"], (option,))
        if hints(entry.make):
            yield Line("typos", [*start, f"{option}x=1"], (f"{option}x",))
        yield Line("typos", [*start[:-1], f"{name}q"], (f"{name}q",))


def options_of_commands() -> Iterator[Line]:
    from seqjax.core.ranges import fits, number
    from seqjax.tools import cli, theory, train
    from seqjax.tools.options import value

    for name, row in cli.COMMANDS.items():
        command: Any = row.function
        first = "gradient_flow" if name == "theory" else "parity"
        if row.named:
            home = theory if name == "theory" else train
            with mock.patch.object(home, "parse", lambda command, *_: command):
                command = command([first])
        needed = {"export": ["nowhere", "--out", "nowhere"]}
        needed |= {"lm_eval": ["nowhere", "--tasks", "lambada_openai"]}
        needed |= {one: ["nowhere"] for one in ("import", "eval", "plot", "generate", "sweep")}
        needed |= {one: ["gru"] for one in ("explain", "show", "check")}
        start = [name, *([first] if row.named else needed.get(name, []))]
        hints = typing.get_type_hints(command, include_extras=True)
        for option, parameter in signature(command).parameters.items():
            flag, hint = f"--{option.replace('_', '-')}", hints[option]
            if option == "config":
                continue
            if parameter.kind is parameter.POSITIONAL_ONLY or "Positional" in str(hint):
                continue
            if hint is bool:
                yield Line("flags", [*start, flag, "maybe"], ("maybe",))
                continue
            for text in VALUES if number(hint) or "Literal" in str(hint) else ():
                if not fits(value(text, hint), hint):
                    yield Line("commands", [*start, flag, text], (option,))
            if not {"tuple", "Mapping"} & set(re.findall(r"\w+", str(hint))):
                yield Line("no value", [*start, flag], (flag,))
            yield Line("typos", [*start, f"{flag}q", "1"], (f"{flag}q",))
        if name in needed:
            yield Line("no value", [name], ("RUN", "FOLDER", "NAME", "a layer, an op", "FILE.py"))


def names() -> Iterator[Line]:
    from seqjax.tasks import TASKS
    from seqjax.tools import cli

    for name in cli.COMMANDS:
        yield Line("names", [name[:-1]], (name[:-1],))
    for name in (*TASKS, "demo", "parity"):
        yield Line("names", ["train", name[:-1]], (name[:-1],))
        yield Line("names", ["profile", name[:-1]], (name[:-1],))
    for command in ("show", "explain", "bench", "check", "selfcheck"):
        for name in ("linear_scam", "gruu", ""):
            yield Line("names", [command, name], (name or "''", "name", "NAME"))
    for where in ("nowhere", "README", ""):
        for command in ("eval", "generate", "import", "plot", "sweep"):
            yield Line("files", [command, where], (where or "checkpoint", "run", "file"))
        yield Line("files", ["export", where, "--out", "new"], (where or "folder",))
        yield Line(
            "files", ["train", "char_lm", "--task.options", f"path=a/{where}"], ("no text at a",)
        )
    yield Line("files", ["train", "parity", "--run", "a file"], ("run",))
    yield Line("files", ["train", "parity", "--run", ""], ("run",))
    yield Line("files", ["profile", "parity", "--trace", "a file"], ("trace",))
    yield Line("files", ["learners", "--figure", "none/x.png"], ("figure",))
    yield Line("files", ["learners", "--figure", "x.doc"], ("figure",))
    for words in (["gru", "--figure", "none/x.png"], ["gru", "--figure", "x.doc"],
                  ["lion", "--figure", "x.png"], ["lion", "--options", "b1=1"],
                  ["gru", "--options", "hidden=0"], ["gru", "--options", "hiden=1"]):  # fmt: skip
        yield Line("show", ["show", *words], ("figure", "options", "hid"))
    for words in (["gruu"], ["gru", "--family", "clasic"], ["--kind", "layer"], ["--family", ""]):
        yield Line("names", ["list", *words], (words[-1],))


def together() -> Iterator[Line]:
    """Sizes that do not go together, or are too large for any machine."""
    parity = ["train", "parity", "--model.layer"]
    for words, named in (
        (["train", "parity", "--task.batch", "6", "--optimiser.accumulate", "4"], "accumulate"),
        (["train", "parity", "--freeze", "embd*"], "embd"),
        (["train", "parity", "--from", "nowhere"], "from"),
        (["train", "parity", "--model.encoder", "gru"], "encoder"),
        (["train", "parity", "--model.front", "conv"], "front"),
        (["train", "parity", "--model.vocabulary", "1"], "vocabulary"),
        (["train", "reverse", "--model.encoder", "gruu"], "gruu"),
        (["train", "reverse", "--model.bridge-heads", "3"], "heads"),
        ([*parity, "gru", "lru", "--model.depth", "1"], "depth"),
        ([*parity, "gla", "heads=3"], "heads"),
        ([*parity, "rwkv7", "heads=5"], "heads"),
        ([*parity, "s5", "blocks=3", "state=8"], "blocks"),
        ([*parity, "stacked", "layers=(1,2)"], "layer"),
        ([*parity, "stacked", 'layers=("gruu",)'], "gruu"),
        ([*parity, "bidirectional", "layer=gruu"], "gruu"),
        ([*parity, "bidirectional", 'layer=("gru",{"hidden":0})'], "hidden"),
        ([*parity, "lru", "r_min=0.9", "r_max=0.1"], "r_m"),
        ([*parity, "zoneout", "layer=s5"], "layer"),
        ([*parity], "layer"),
        (["train", "parity", "--model.compute", "float64"], "compute"),
        ([*parity, "hidden=3"], "layer"),
        ([*parity, "gru", "=3"], "layer"),
        ([*parity, "gru", "--model.evaluator", "associative"], "evaluator"),
        ([*parity, "gru", "--model.features", "1000000"], "features"),
        (["train", "parity", "--model.depth", "100000000"], "depth"),
        (["train", "parity", "--task.length", "1000000000"], "task.length"),
        (["train", "parity", "--task.batch", "1000000000"], "batch"),
        (["train", "parity", "--task.evaluation-length", "1000000000"], "evaluation"),
        (["train", "copy", "--task.length", "20"], "length"),
        (["train", "copy", "--task.evaluation-length", "20"], "length"),
        (["train", "mqar", "--task.length", "31"], "length"),
        (["train", "adding", "--task.length", "1"], "length"),
        (["train", "associative_recall", "--task.length", "64"], "length"),
        (["train", "selective_copy", "--task.length", "3"], "length"),
        (["train", "induction_heads", "--task.length", "2"], "length"),
        (["train", "parity", "--task.evaluation-batches", "None"], "evaluation_batches"),
        (["train", "mqar", "--task.options", "pairs=40", "vocabulary=64"], "vocabulary"),
        (["train", "char_lm", "--task.options", "held_out=0", "glob=json/*.py"], "held_out"),
        (["train", "char_lm", "--task.options", "held_out=100000000"], "held_out"),
        (["train", "char_lm", "--task.options", "glob=*.nothing"], "nothing"),
        (["train", "char_lm", "--task.options", "glob=json/*.py", "--task.length", "10000000"],
         "length"),
    ):  # fmt: skip
        yield Line("together", words, (named,))
        if words[0] == "train" and named != "evaluator":
            yield Line("together, tiny", [*words[:2], "--tiny", *words[2:]], (named,))


# --- what becomes of them


@contextmanager
def without_work() -> Iterator[None]:
    """Where work would begin, `Accepted`."""
    from seqjax.tools import agreement, bench, profile, selfcheck, sweep
    from seqjax.train import loop as train

    prepare = train.prepare

    def accept(*_, **__) -> None:
        raise Accepted

    def prepared(*given, **named):
        prepare(*given, **named)
        raise Accepted

    with (
        mock.patch.object(train, "prepare", prepared), mock.patch.object(bench, "run", accept),
        mock.patch.object(selfcheck, "solve", accept),
        mock.patch.object(profile, "measure", accept), mock.patch.object(sweep, "run_all", accept),
        mock.patch.object(agreement, "network", accept),
    ):  # fmt: skip
        yield


def outcome(line: Line, folder: Path) -> tuple[str, str]:
    """ "" or one of OUTCOMES, and what was printed."""
    from seqjax.tools.cli import main

    before, out, err = sorted(folder.rglob("*")), io.StringIO(), io.StringIO()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err):
        try:
            status: Any = main(line.words)
        except SystemExit as stop:
            status = stop.code
        except Accepted:
            return "accepted", ""
        except BaseException as error:
            return "traceback", f"{type(error).__name__}: {error}"
    if sorted(folder.rglob("*")) != before:
        return "late death", err.getvalue()
    return judged(line, status, err.getvalue()), err.getvalue()


def judged(line: Line, status: Any, message: str) -> str:
    if status in (0, None):
        return "accepted"
    if "Traceback" in message:
        return "traceback"
    if status != 2:
        return "other status"
    if message.count("\n") != 1:
        return "not one line"
    return "" if any(name in message for name in line.named) else "names nothing"


def real(line: Line, folder: Path) -> tuple[str, str]:
    """The same of a process."""
    before = sorted(folder.rglob("*"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "seqjax.tools.cli", *line.words], cwd=folder, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    late = sorted(folder.rglob("*")) != before
    return "late death" if late else judged(line, done.returncode, done.stderr), done.stderr


def check(chosen: list[Line], run: Any, show: bool = True) -> dict[str, Counter]:
    """kind of line -> how many, and how many of each outcome."""
    table: dict[str, Counter] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "README").touch()
        (folder / "a file").touch()
        for line in chosen:
            found, message = run(line, folder)
            table.setdefault(line.kind, Counter()).update(["lines", *filter(None, [found])])
            if found and show:
                print(f"{found}: seqjax {shlex.join(line.words)}\n    {message.strip()}",
                      file=sys.stderr, flush=True)  # fmt: skip
    return table


def share_of(every: list[Line], share: float) -> list[Line]:
    """A share of the lines, of every kind."""
    kinds: dict[str, list[Line]] = {}
    for line in every:
        kinds.setdefault(line.kind, []).append(line)
    step = max(1, round(1 / share))
    return [line for some in kinds.values() for line in some[step // 2 % len(some) :: step]]


def main(share: float, processes: int) -> int:
    every = list(lines())
    with without_work():
        table = check(share_of(every, share), outcome)
    if processes:
        table["as processes"] = sum(
            check(share_of(every, processes / len(every)), real).values(), Counter()
        )
    columns = ("lines", *OUTCOMES)
    print(f"{'':16}" + "".join(f"{column:>15}" for column in columns))
    table["all"] = sum(table.values(), Counter())
    for kind, counts in table.items():
        print(f"{kind:16}" + "".join(f"{counts[column]:15}" for column in columns))
    return 1 if any(table["all"][column] for column in OUTCOMES) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the lines, above 0 to 1")
    parser.add_argument("--processes", type=int, default=12, help="lines run as processes, too")
    given = parser.parse_args()
    if not 0 < given.share <= 1:
        parser.error(f"--share must be above 0 and at most 1, got {given.share}")
    if given.processes < 0:
        parser.error(f"--processes must be at least 0, got {given.processes}")
    sys.exit(main(given.share, given.processes))
