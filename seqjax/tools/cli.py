"""The command line: `seqjax COMMAND ...`.

A command is a function of one module of this package, which is imported when the command runs:
`--help` and `--version` wait for no jax.
"""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

import seqjax


class Command(NamedTuple):
    place: str  # MODULE:FUNCTION in this package
    title: str
    named: bool = False  # the function takes the words: the first, a name, decides on the options

    @property
    def function(self) -> Callable[..., int]:
        module, _, name = self.place.partition(":")
        return getattr(import_module(f"seqjax.tools.{module}"), name)

    def run(self, name: str, words: list[str]) -> int:
        from seqjax.tools.options import parse

        return self.function(words) if self.named else parse(self.function, words, name)


COMMANDS: dict[str, Command] = {
    "train": Command("train:train", "train a model: a recipe, a task or a file of your own", True),
    "eval": Command("runs:evaluate", "score a trained model"),
    "sweep": Command("sweep:sweep", "train all configs of FILE.py with all its seeds: one table"),
    "plot": Command("plot:plot", "draw runs together, with bands over seeds and the baseline"),
    "generate": Command("runs:generate", "write text with a trained model"),
    "lm_eval": Command(
        "harness:harness", "score a model of text on tasks of lm-evaluation-harness"
    ),
    "checkpoints": Command("checkpoints:index", "what the checkpoints of a run hold, and if whole"),
    "import": Command("checkpoints:import_", "read a checkpoint of the transformers library"),
    "export": Command(
        "checkpoints:export",
        "write an imported model, as it was or trained on, as such a checkpoint",
    ),
    "list": Command("tables:list_tables", "every row of every table: layers, ops, tasks ..."),
    "show": Command("show:show", "all of a row: equation, options, costs, and a picture"),
    "data": Command("data:data", "the datasets, what of them is here; prepare one"),
    "explain": Command(
        "explain:explain", "which evaluator would run for a layer or an op, and why"
    ),
    "check": Command(
        "check:check", "hold a layer to its laws: a name, or FILE.py:Class of your own"
    ),
    "selfcheck": Command(
        "selfcheck:selfcheck", "every evaluator against the naive loop, on this device"
    ),
    "learners": Command(
        "agreement:agreement", "gradients of every way to learn against the exact ones"
    ),
    "theory": Command(
        "theory:theory", "questions of theory, asked of layers: tables and curves", True
    ),
    "profile": Command(
        "profile:profile", "where the time and memory of a training step go, by layer and op", True
    ),
    "plan": Command(
        "plan:plan", "memory, exchange and time of a training step on chips that are not here", True
    ),
    "bench": Command("bench:bench", "time and memory beside the peer and the floor"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command. Mistakes are one line on stderr and exit code 2, failures exit code 1."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: seqjax COMMAND ...    (seqjax COMMAND --help: more)\n")
        print("\n".join(f"    {name:12}{command.title}" for name, command in COMMANDS.items()))
        print("\nWith --import MODULE or FILE.py a command knows what that brings: layers, tasks.")
        print("seqjax --version: this version and those it runs on.")
        print("SEQJAX_TRACEBACK=1 shows where an error comes from.")
        return 0
    if name == "--version":
        beside = ", ".join(f"{one} {version(one)}" for one in ("jax", "flax", "optax", "numpy"))
        print(f"seqjax {seqjax.__version__} ({beside}, Python {platform.python_version()})")
        return 0
    from seqjax.core.common import keep_memory, printable, unknown

    keep_memory()
    try:
        if name not in COMMANDS:
            raise ValueError(unknown("command", name, COMMANDS))
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            from seqjax.zoo.own import brought

            return COMMANDS[name].run(name, brought(rest))
    except (ValueError, TypeError, KeyError, ArithmeticError, RuntimeError, OSError) as error:
        if os.environ.get("SEQJAX_TRACEBACK"):
            raise
        with suppress(OSError):  # the terminal may be gone
            print(f"seqjax: {printable(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError | TypeError | KeyError) else 1
    except KeyboardInterrupt:
        return 130


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """A notice is one line, as an error is."""
    from seqjax.core.common import Notice

    text = f"seqjax: {message}\n" if category is Notice else warnings.formatwarning(
        message, category, filename, lineno, line)  # fmt: skip
    (file or sys.stderr).write(text)


if __name__ == "__main__":
    sys.exit(main())
