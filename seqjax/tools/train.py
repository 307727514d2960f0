"""`seqjax train NAME`: a recipe, a task with your choice of options, or a file of your own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro

from seqjax.core.common import unknown
from seqjax.models import MODELS, find
from seqjax.recipes import RECIPES
from seqjax.tasks import TASKS
from seqjax.tools.options import parse
from seqjax.train.config import Config, TaskConfig, fitted, smoke
from seqjax.train.processes import ALONE, Processes


def train(words: list[str]) -> int:
    return with_config(words, "train", _command)


def with_config(
    words: list[str], command: str, make: Callable[[Config, str], Callable[..., int]]
) -> int:
    """Run make(config, name) of the config that the first word names, with the options after it."""
    if not words or words[0].startswith("-"):
        print(f"usage: seqjax {command} NAME [OPTIONS]    (seqjax {command} NAME --help: more)\n")
        print("NAME is a recipe:", *RECIPES)
        print("       or a task:", *TASKS)
        print("       or a file of your own, FILE.py, with its layers, tasks and CONFIG")
        return 0 if {"-h", "--help"} & set(words) else 2
    name, *rest = words
    config = own_config(name) if name.endswith(".py") else RECIPES.get(name)
    if config is None:
        if name not in TASKS:
            known = {**RECIPES, **TASKS}
            raise ValueError(f"{unknown('recipe or task', name, known)} (or give FILE.py)")
        config = Config(task=TaskConfig(name))
    return parse(make(config, Path(name).stem), rest, f"{command} {name}")


def own_config(file: str) -> Config:
    """CONFIG of a file, whose layers and tasks are brought."""
    from seqjax.zoo.own import bring

    config = getattr(bring(file), "CONFIG", None)
    if not isinstance(config, Config):
        raise ValueError(f"{file} must define CONFIG, a seqjax.train.config.Config, "
                         f"got {config!r:.40}")  # fmt: skip
    return config


def _command(default: Config, name: str) -> Callable[..., int]:
    def command(
        config: Annotated[Config, tyro.conf.arg(name="")] = default,
        run: Path | None = None,
        origin: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
        from_moments: bool = False,
        tiny: bool = False,
        processes: Processes = ALONE,
    ) -> int:
        """Train a model. The same command with the same --run goes on where it stopped.

        Args:
            run: folder for metrics, curves and checkpoints; by default runs/NAME-TIME
            origin: folder of a run, or of a checkpoint as `seqjax import` reads or writes it, or
                the name of a model of `seqjax list --kind models`: go on with its model, for this
                task; a folder of its own is --run
            from_moments: go on with the optimiser of that run too: its moments, and its average of
                weights
            tiny: two steps at the smallest sizes, to see that it runs
            processes: of a run of several, each of which is started with the same command
        """
        from seqjax.train.loop import train
        from seqjax.train.processes import first, job, leads
        from seqjax.train.progress import table
        from seqjax.train.step import prepare

        with job(processes):
            if origin is not None:
                origin = find(origin) if str(origin) in MODELS else origin
                config = replace(config, model=_changed(config.model, default.model))
            if tiny and origin is None:
                prepare(fitted(config))  # a mistake in what tiny changes is one too
            now = first(datetime.now)
            run = run or Path("runs") / f"{name}-{now:%Y%m%d-%H%M%S}"
            if tiny:
                config = replace(smoke(config), **({"model": config.model} if origin else {}))
            result = train(config, run, origin=origin, moments=from_moments)
            if leads():
                with suppress(OSError):  # the terminal may be gone
                    print(f"{result.reason} after step {result.step}, {result.seconds:.0f} s: "
                          f"{table(result.metrics)}\nin {run}", flush=True)  # fmt: skip
        return result.status

    return command


def _changed(config: Any, default: Any) -> Any:
    """What was set of a config that began as `default`, and else what its class has."""
    names = [n for n in asdict(config) if getattr(config, n) != getattr(default, n)]
    return type(config)(**{name: getattr(config, name) for name in names})
