"""The command line: `seqjax COMMAND ...`. Every command imports what it needs, when it runs."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from seqjax.core.common import Notice, keep_memory, printable, unknown
from seqjax.core.ranges import Range
from seqjax.tools.options import parse
from seqjax.train.config import (
    Config,
    Count,
    NotNegative,
    Seed,
    TaskConfig,
    check_config,
    fitted,
    smoke,
)

Step = Annotated[int, Range(0)]
Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]


def train(argv: list[str]) -> int:
    from seqjax.recipes import RECIPES
    from seqjax.tasks import TASKS

    if not argv or argv[0].startswith("-"):
        print("usage: seqjax train NAME [OPTIONS]    (seqjax train NAME --help: more)\n")
        print("NAME is a recipe:", *RECIPES)
        print("       or a task:", *TASKS)
        print("       or a file of your own, FILE.py, with its layers, tasks and CONFIG")
        return 0 if {"-h", "--help"} & set(argv) else 2
    name, *rest = argv
    default = _own_config(name) if name.endswith(".py") else RECIPES.get(name)
    if default is None:
        if name not in TASKS:
            known = {**RECIPES, **TASKS}
            raise ValueError(f"{unknown('recipe or task', name, known)} (or give FILE.py)")
        default = Config(task=TaskConfig(name))
    name = Path(name).stem

    def command(
        config: Annotated[Config, tyro.conf.arg(name="")] = default,
        run: Path | None = None,
        origin: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
        tiny: bool = False,
    ) -> int:
        """Train a model. The same command with the same --run goes on where it stopped.

        Args:
            run: folder for metrics, curves and checkpoints; by default runs/NAME-TIME
            origin: folder of a run, or of a checkpoint as `seqjax import` reads or writes it: go on
                with its model, for this task; a folder of its own is --run
            tiny: two steps at the smallest sizes, to see that it runs
        """
        from dataclasses import replace
        from datetime import datetime

        from seqjax.train.loop import train
        from seqjax.train.progress import table
        from seqjax.train.step import prepare

        if origin is not None:
            config = replace(config, model=_changed(config.model, default.model))
        if tiny and origin is None:
            prepare(fitted(config))  # a mistake in what tiny changes is one too
        run = run or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        if tiny:
            config = replace(smoke(config), **({"model": config.model} if origin else {}))
        result = train(config, run, origin=origin)
        with suppress(OSError):  # the terminal may be gone
            print(f"{result.reason} after step {result.step}, {result.seconds:.0f} s: "
                  f"{table(result.metrics)}\nin {run}", flush=True)  # fmt: skip
        return result.status

    return parse(command, rest, f"train {name}")


def _own_config(file: str) -> Config:
    """CONFIG of a file, whose layers and tasks are brought."""
    from seqjax.zoo.own import bring

    config = getattr(bring(file), "CONFIG", None)
    if not isinstance(config, Config):
        raise ValueError(f"{file} must define CONFIG, a seqjax.train.config.Config, "
                         f"got {config!r:.40}")  # fmt: skip
    return config


def evaluate(argv: list[str]) -> int:
    def command(
        run: Run,
        step: Step | None = None,
        batch: Count | None = None,
        length: Count | None = None,
        batches: Count | None = None,
    ) -> int:
        """Score a trained model on validation batches.

        Args:
            run: folder of the run
            step: which checkpoint; by default the best one
            batch: sequences per batch; by default as in training
            length: time steps per sequence; by default as in training
            batches: how many batches; by default as in training
        """
        from dataclasses import replace

        from seqjax.train.loop import load
        from seqjax.train.progress import table
        from seqjax.train.record import read_config
        from seqjax.train.step import make_evaluate, take_apart

        config = read_config(run)
        given = {"batch": batch, "evaluation_length": length, "evaluation_batches": batches}
        changed = {name: value for name, value in given.items() if value is not None}
        config = replace(
            config, task=replace(config.task, **changed),
            optimiser=replace(config.optimiser, accumulate=1),  # no matter of evaluation
        )  # fmt: skip
        model, task, _, at = load(run, step)
        check_config(config)
        params, frozen, _, rebuild = take_apart(model)
        metrics = make_evaluate(config, task, rebuild)(params, frozen)
        length = config.task.evaluation_length or config.task.length
        print(f"step {at}    {table(metrics)}\nbaseline  {table(task.baseline(length))}")
        return 0

    return parse(command, argv, "eval")


def import_(argv: list[str]) -> int:
    def command(checkpoint: Folder, out: Path | None = None, context: Count | None = None) -> int:
        """Read a checkpoint of the transformers library into our model.

        Args:
            checkpoint: folder with config.json and model.safetensors, or the files of its index
            out: new folder for the model in our format, for `seqjax generate` and `export`
            context: tokens that full attention can look back, kept in `out`; by default the
                config's, at most 4096
        """
        from seqjax.hf import read
        from seqjax.hf.files import vacant

        if out is not None:
            vacant(out)
        found = read(checkpoint, context=context)
        print(found.summary())
        if out is not None:
            from seqjax.train.imported import store

            store(found, out)
            print(f"in {out}")
        return 0

    return parse(command, argv, "import")


def export(argv: list[str]) -> int:
    def command(folder: Folder, out: Path, step: Step | None = None) -> int:
        """Write an imported model, or a run that began with one, as a checkpoint of the
        transformers library.

        Args:
            folder: what `seqjax import --out` wrote, or of a run
            out: new folder for config.json, the weights, and the tokenizer if there was one
            step: which checkpoint of a run; by default the best one
        """
        from seqjax.hf import write
        from seqjax.hf.files import vacant
        from seqjax.train.imported import load, stored
        from seqjax.train.loop import load as load_run
        from seqjax.train.origin import exported

        vacant(out)
        if not stored(folder):
            found = exported(folder, load_run(folder, step)[0])
        elif step is None:
            found = load(folder)
        else:
            raise ValueError(f"{folder} is an imported model: it has no steps to choose from")
        write(found, out)
        print(f"{found.summary()}\nin {out}")
        return 0

    return parse(command, argv, "export")


def generate(argv: list[str]) -> int:
    def command(
        run: Run,
        prompt: tuple[str, ...] = ("\n",),
        length: Annotated[int, Range(0)] = 400,
        temperature: NotNegative = 0.8,
        top_k: Count | None = None,
        top_p: Annotated[float, Range(above=0, high=1)] | None = None,
        seed: Seed = 0,
        step: Step | None = None,
        context: Count | None = None,
        raw: bool = False,
    ) -> int:
        """Write on after prompts with a trained model of text, or an imported one.

        Control bytes are written as escapes, as in \\x1b, but for newlines and tabs.

        Args:
            run: folder of the run, or of an imported model
            prompt: one or more texts to go on from; for an imported model numbers of tokens,
                as in "17 4 25": its tokenizer is carried along, and not run
            length: bytes, or tokens, to write after each
            temperature: below 1 likelier bytes are preferred; 0 always takes the likeliest
            top_k: sample from the k likeliest bytes only
            top_p: sample from the likeliest bytes that together have this probability
            seed: of the samples
            step: which checkpoint of a run; by default the best one
            context: tokens that full attention of an imported model can look back, and so the size
                of its state; by default what it was imported with
            raw: bytes as they are, control bytes too, for a file or a pipe
        """
        import jax

        from seqjax.tasks.char_lm import SPEC
        from seqjax.train.generate import generate
        from seqjax.train.imported import load as load_imported, stored
        from seqjax.train.loop import load_model
        from seqjax.train.record import read_config

        if raw and sys.stdout.isatty():
            raise ValueError("--raw may write control bytes: send it to a file or a pipe")
        if stored(run):
            if step is not None:
                raise ValueError(f"{run} is an imported model: it has no steps to choose from")
            model = load_imported(run, context=context).model
            encode, decode = _numbers, _spaced
        else:
            task = read_config(run).task.name
            if task != "char_lm":
                raise ValueError(f"{run} was trained on {task}: only char_lm writes text")
            if context is not None:
                raise ValueError("--context is for imported models: what a trained one sees is "
                                 "an option of its layers")  # fmt: skip
            model, _ = load_model(run, SPEC, step)
            encode, decode = lambda text: list(os.fsencode(text)), _bytes
        rows = generate(
            model,
            [encode(text) for text in prompt],
            length,
            key=jax.random.key(seed),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
        )
        for text, row in zip(prompt, rows, strict=True):
            if raw:
                sys.stdout.buffer.write(os.fsencode(text) + decode(row) + b"\n")
            else:
                whole = os.fsencode(text) + decode(row)
                print(printable(whole.decode(errors="backslashreplace")))
        return 0

    return parse(command, argv, "generate")


def report(argv: list[str]) -> int:
    from seqjax.tools.report import list_tables

    return parse(list_tables, argv, "list")


def explain(argv: list[str]) -> int:
    from seqjax.tools.report import explain

    return parse(explain, argv, "explain")


def check(argv: list[str]) -> int:
    from seqjax.tools.check import check

    return parse(check, argv, "check")


def selfcheck(argv: list[str]) -> int:
    from seqjax.tools.selfcheck import selfcheck

    return parse(selfcheck, argv, "selfcheck")


def bench(argv: list[str]) -> int:
    from seqjax.tools.bench import bench

    return parse(bench, argv, "bench")


def learners(argv: list[str]) -> int:
    from seqjax.tools.agreement import agreement

    return parse(agreement, argv, "learners")


def _changed(config: Any, default: Any) -> Any:
    """What was set of a config that began as `default`, and else what its class has."""
    from dataclasses import asdict

    names = [n for n in asdict(config) if getattr(config, n) != getattr(default, n)]
    return type(config)(**{name: getattr(config, name) for name in names})


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split()]
    except ValueError:
        raise ValueError(f"a prompt of an imported model is numbers, got {text!r}") from None


def _spaced(tokens) -> bytes:
    return "".join(f" {token}" for token in tokens.tolist()).encode()


def _bytes(tokens) -> bytes:
    """Bytes; "?" where a model that knows more tokens than these writes another."""
    return bytes(token if token < 256 else ord("?") for token in tokens.tolist())


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """A notice is one line, as an error is."""
    ours = category is Notice
    text = f"seqjax: {message}\n" if ours else warnings.formatwarning(
        message, category, filename, lineno, line)  # fmt: skip
    (file or sys.stderr).write(text)


class Command(NamedTuple):
    run: Callable[[list[str]], int]
    title: str


COMMANDS: dict[str, Command] = {
    "train": Command(train, "train a model: an experiment, or a task with your choice of options"),
    "eval": Command(evaluate, "score a trained model"),
    "generate": Command(generate, "write text with a trained model"),
    "import": Command(import_, "read a checkpoint of the transformers library"),
    "export": Command(
        export, "write an imported model, as it was or trained on, as such a checkpoint"
    ),
    "list": Command(report, "everything that stands: layers, ops, evaluators, learners, tasks"),
    "explain": Command(explain, "which evaluator would run for a layer or an op, and why"),
    "check": Command(check, "hold a layer to its laws: a name, or FILE.py:Class of your own"),
    "selfcheck": Command(selfcheck, "every evaluator against the naive loop, on this device"),
    "learners": Command(learners, "gradients of every way to learn against the exact ones"),
    "bench": Command(bench, "time and memory beside the peer and the floor"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command. Mistakes are one line on stderr and exit code 2, failures exit code 1."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: seqjax COMMAND ...    (seqjax COMMAND --help: more)\n")
        print("\n".join(f"    {name:12}{command.title}" for name, command in COMMANDS.items()))
        print("\nWith --import MODULE or FILE.py a command knows what that brings: layers, tasks.")
        print("SEQJAX_TRACEBACK=1 shows where an error comes from.")
        return 0
    keep_memory()
    try:
        if name not in COMMANDS:
            raise ValueError(unknown("command", name, COMMANDS))
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            from seqjax.zoo.own import brought

            return COMMANDS[name].run(brought(rest))
    except (ValueError, TypeError, KeyError, ArithmeticError, RuntimeError, OSError) as error:
        if os.environ.get("SEQJAX_TRACEBACK"):
            raise
        with suppress(OSError):  # the terminal may be gone
            print(f"seqjax: {printable(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError | TypeError | KeyError) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
