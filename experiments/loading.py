"""How fast examples are read, beside how fast a training step takes them.

command     python -m experiments.loading smnist imdb tagging lra_image
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        12 minutes
expected    examples in a second

                recipe     read  again  by 2 workers  taken
                smnist     1460   2442          1354     71
                imdb        657   1090          1105     69
                tagging     393   1123          1064     46
                lra_image   262   1287          1276      4

Read by the process that trains; in the epochs after the first, where they fit in memory; by two
workers; and taken by the training step of the recipe, which here takes the longer. Without a name
all recipes whose examples are read one by one are measured; one whose raw files are not on the
machine is left out, with the line that names them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments import words
from seqjax.data import DataError
from seqjax.recipes import RECIPES
from seqjax.tasks.records import RecordTask
from seqjax.tools.screen import print_table
from seqjax.train.config import Config, fitted, task_of
from seqjax.train.imported import build
from seqjax.train.step import prepare, take_apart

BATCHES = 20


def rate(do: Callable[[], Any], examples: int) -> float:
    """Examples in a second, of calls that take a batch each; the first two are not counted."""
    for _ in range(2):
        jax.block_until_ready(do())
    began = perf_counter()
    for _ in range(BATCHES):
        done = do()
    jax.block_until_ready(done)
    return BATCHES * examples / (perf_counter() - began)


def measured(config: Config, task: RecordTask, workers: int = 2) -> list[float]:
    """Examples in a second: read, read again, read by workers, taken."""
    config = fitted(config, task)
    c = config.task
    found = []
    for ahead in (0, 0, workers):
        data: Any = replace(task, workers=ahead).batches(0, c.batch, c.length)
        found.append(rate(partial(next, data), c.batch))
        if ahead:
            data.close()
    programs = prepare(config, task=task)
    model = build(config.model, task.spec, None, rngs=nnx.Rngs(0))
    params, frozen, *_ = take_apart(model)
    state, batch = programs.start(params, frozen), next(task.batches(0, c.batch, c.length))

    def step() -> Any:
        nonlocal state
        state, metrics = programs.update(state, batch, np.float32(0))
        return metrics

    return [*found, rate(step, c.batch)]


def main(names: list[str]) -> None:
    rows = []
    for name in names or RECIPES:
        config = RECIPES[name]
        try:
            task = task_of(config)
            if not isinstance(task, RecordTask):
                continue
            rates = measured(config, task)
        except DataError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        rows.append((name, *(f"{value:.0f}" for value in rates)))
    print_table("Examples in a second", ("recipe", "read", "again", "by 2 workers", "taken"), rows)


if __name__ == "__main__":  # workers import this file
    main(words("recipe", RECIPES))
