"""The models that come with the package: train one, store it, write its card.

    python scripts/pretrain.py NAME --run FOLDER

Ten minutes at most on 2 CPU cores each; the same again goes on, or only stores. The card has what
is measured on what was stored, and tests/test_pretrained.py holds it to the score on the sample.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax

from seqjax.core.common import keep_memory
from seqjax.core.files import write_atomically
from seqjax.models import FOLDER, MODELS
from seqjax.recipes import demo, mqar
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig, task_of
from seqjax.train.evaluation import make_evaluate
from seqjax.train.loop import train
from seqjax.train.progress import table
from seqjax.train.record import read_config
from seqjax.train.step import take_apart
from seqjax.train.trained import load_model
from seqjax.train.weights import FILE, store

SAMPLE = FOLDER / "python" / "sample.txt"  # of this package: no part of the standard library


class Plan(NamedTuple):
    config: Config
    dtype: str  # of the floats that are stored
    sample: TaskConfig  # what the score on the card is of
    data: str
    use: str
    limits: str


def steps(config: Config, **changed: object) -> Config:
    return replace(config, train=replace(config.train, **changed))


PLANS = {
    "python": Plan(
        steps(demo.CONFIG, max_seconds=600, evaluate_every=2000),
        "float16",
        TaskConfig("char_lm", {"path": str(SAMPLE), "held_out": SAMPLE.stat().st_size - 1},
                   batch=4, length=128, evaluation_batches=None),
        "the source of Python's standard library (PSF License), without its tests and without the "
        "500 kB held out; nothing of it is stored but these weights",
        'seqjax generate python --prompt "def "',
        "It has the look of Python and not its meaning: names, indentation and docstrings, no "
        "working programs. It has seen nothing but the standard library.",
    ),
    "permutations": Plan(
        Config(
            TaskConfig("state_tracking", {"group": "S3"}, batch=64, length=40,
                       evaluation_batches=4, evaluation_length=400),
            ModelConfig(layer=(LayerConfig("gru"),), features=64, depth=1),
            OptimiserConfig(learning_rate=5e-3, warmup=50, weight_decay=0.01),
            TrainConfig(steps=1500, evaluate_every=250, save_every=500),
        ),
        "float16",
        TaskConfig("state_tracking", {"group": "S3"}, batch=16, length=400, evaluation_batches=4),
        "permutations of three things, drawn at random, 40 in a row",
        "seqjax eval permutations --length 4000",
        "One group of six elements.",
    ),
    "mqar": Plan(
        steps(mqar.CONFIG, steps=1500, evaluate_every=250),
        "float16",
        TaskConfig("mqar", {"pairs": 4, "vocabulary": 64}, batch=16, length=32,
                   evaluation_batches=4),
        "sequences drawn at random: 4 pairs of 64 tokens, each key queried once",
        "seqjax eval mqar --length 64",
        "Its 64 tokens are keys and values of a toy vocabulary.",
    ),
}  # fmt: skip


def measure(name: str, task: TaskConfig) -> dict[str, float]:
    """Metrics of a model that is stored, on the validation batches of a task."""
    config = replace(read_config(FOLDER / name), task=task)
    of_task = task_of(config)
    model, _ = load_model(FOLDER / name, of_task.spec)
    params, frozen, _, rebuild = take_apart(model)
    return make_evaluate(config, of_task, rebuild)(params, frozen)


def card(name: str, seconds: float) -> str:
    plan, config = PLANS[name], read_config(FOLDER / name)
    size = (FOLDER / name / FILE).stat().st_size
    held_out = replace(config.task, evaluation_batches=config.task.evaluation_batches or 8)
    layers = " ".join(layer.name for layer in config.model.layer)
    versions = ", ".join(f"{one} {version(one)}" for one in ("jax", "flax", "optax"))
    device = f"{len(jax.devices())} x {jax.devices()[0].device_kind}, {platform.machine()}"
    length = held_out.evaluation_length or held_out.length
    command = f"python scripts/pretrain.py {name} --run runs/{name}"
    rows = {
        "use": f"`{plan.use}`",
        "model": f"{layers}, depth {config.model.depth}, {config.model.features} features",
        "weights": f"{size / 1e6:.2f} MB, floats stored as {plan.dtype}",
        "trained on": plan.data,
        "made by": f"`{command}` in {seconds:.0f} s, {date.today()}",
        "with": f"Python {platform.python_version()}, {versions}, {device}, 2 shared cores",
        f"held out, {held_out.evaluation_batches} x {held_out.batch} x {length} steps":
            table(measure(name, held_out)),
        "sample": table(measure(name, plan.sample)),
        "limits": plan.limits,
        "licence of the weights": "Apache-2.0",
    }  # fmt: skip
    lines = [f"# {name}", "", f"{MODELS[name]}.", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | {value} |" for key, value in rows.items()), ""])


def main(name: str, run: Path) -> None:
    plan = PLANS[name]
    result = train(plan.config, run)
    model, step = load_model(run, task_of(plan.config).spec)
    params, frozen, *_ = take_apart(model)
    store(run, FOLDER / name, step, {**params, **frozen}, plan.dtype)
    text = card(name, result.seconds)
    write_atomically(FOLDER / name / "CARD.md", text)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=PLANS)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    given = parser.parse_args()
    keep_memory()
    main(given.name, given.run)
