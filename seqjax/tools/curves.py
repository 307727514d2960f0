"""Metrics of several runs, side by side: read, put together over seeds, named by what differs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from seqjax.core.common import unknown
from seqjax.stacks.config import LayerConfig
from seqjax.train.config import Config, task_of
from seqjax.train.record import read_config, read_metrics, read_objects

Axis = Literal["steps", "tokens", "seconds"]
METRIC = "validation_loss"
SEED = "train.seed"


@dataclass(frozen=True)
class Run:
    """A folder, its config, and the lines of its metrics."""

    folder: Path
    config: Config
    rows: list[dict[str, float]]

    def points(self, metric: str) -> dict[int, float]:
        """step -> value."""
        return {int(row["step"]): row[metric] for row in self.rows if metric in row}

    def along(self, axis: Axis, steps: Sequence[int]) -> np.ndarray:
        """Where steps are on the axis; seconds are logged at some of them, and lie between."""
        if axis == "steps":
            return np.asarray(steps, np.float64)
        if axis == "tokens":
            return np.asarray(steps, np.float64) * self.config.task.batch * self.config.task.length
        known = {0: 0.0, **self.points("seconds")}
        return np.interp(steps, sorted(known), [known[step] for step in sorted(known)])

    def baseline(self, metric: str) -> float | None:
        """Of the task, at the length that the metric is of; None where it has none."""
        if "task" in read_objects(self.folder):
            return None
        length = self.config.task.length
        if metric.startswith("validation_"):
            length = self.config.task.evaluation_length or length
        value = task_of(self.config).baseline(length).get(metric.removeprefix("validation_"))
        return None if value is None else float(value)


@dataclass(frozen=True)
class Curve:
    """Runs that differ in nothing but the seed, at the steps that all of them have."""

    label: str
    runs: list[Run]
    steps: list[int]
    x: np.ndarray  # [steps], the mean over runs
    values: np.ndarray  # [runs, steps]


def read_run(folder: Path) -> Run:
    """Raises ValueError for a folder that is no run, or one without metrics."""
    run = Run(folder, read_config(folder), read_metrics(folder))
    if not run.rows:
        raise ValueError(f"{folder} has no metrics yet")
    return run


def curves(runs: Sequence[Run], metric: str, axis: Axis) -> list[Curve]:
    """Raises ValueError for a metric that a run does not have."""
    for run in runs:
        if not run.points(metric):
            known = sorted({name for row in run.rows for name in row} - {"step"})
            raise ValueError(unknown(f"metric of {run.folder}:", metric, known))
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(_without_seed(run.config), sort_keys=True), []).append(run)
    names = labels([group[0].config for group in groups.values()])
    found = []
    for group, name in zip(groups.values(), names, strict=True):
        points = [run.points(metric) for run in group]
        steps = sorted(set.intersection(*(set(one) for one in points)))
        if not steps:
            folders = ", ".join(str(run.folder) for run in group)
            raise ValueError(f"{folders} have no step in common at which {metric} was measured")
        x = np.mean([run.along(axis, steps) for run in group], axis=0)
        values = np.array([[one[step] for step in steps] for one in points])
        found.append(Curve(name or group[0].folder.name, group, steps, x, values))
    return found


def labels(configs: Sequence[Config]) -> list[str]:
    """For each config the fields in which they differ, but the seed; "" for a single one.

    Options are compared where what they are options of is the same.
    """
    flat = [dict(_flat(config)) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one if name != SEED)
    chosen = [name for name in names if _differs(name, flat)]
    short = {name: name.rpartition(".")[2] for name in chosen}
    clash = {s for s in short.values() if list(short.values()).count(s) > 1}
    shown = {name: name if short[name] in clash else short[name] for name in chosen}
    return [
        ", ".join(_label(shown[name], one[name]) for name in chosen if name in one) for one in flat
    ]


def _label(name: str, value: Any) -> str:
    return str(value) if name in ("layer", "task") else f"{name}={value}"


def _differs(name: str, flat: Sequence[Mapping[str, Any]]) -> bool:
    """Whether configs that have the field, and the same owner of it, have different values."""
    owner = name.rpartition(".")[0] if name.count(".") > 1 else None
    by_owner: dict[Any, set[str]] = {}
    for one in flat:
        key = None if owner is None else one.get(owner)
        by_owner.setdefault(key, set()).add(repr(one.get(name)))
    return any(len(values) > 1 for values in by_owner.values())


def _flat(config: Config) -> Iterator[tuple[str, Any]]:
    """section.field -> value; options are fields of the layer, task or optimiser they are of."""
    for section, fields in asdict(config).items():
        for field, value in fields.items():
            if field in ("layer", "encoder"):
                pattern: Iterable[LayerConfig] = getattr(getattr(config, section), field)
                yield f"{section}.{field}", " ".join(one.name for one in pattern)
                for n, one in enumerate(pattern):
                    place = f"{section}.{field}" if n == 0 else f"{section}.{field}.{n}"
                    yield from ((f"{place}.{name}", v) for name, v in one.options.items())
            elif field == "options":
                yield from ((f"{section}.{section}.{name}", v) for name, v in value.items())
            elif field == "name":
                yield f"{section}.{section}", value
            else:
                yield f"{section}.{field}", value


def _without_seed(config: Config) -> dict[str, Any]:
    fields = asdict(config)
    fields["train"].pop("seed")
    return fields


def summary(found: Sequence[Curve], metric: str) -> list[tuple[str, ...]]:
    """Rows of a table: label, runs, the last step, mean and deviation there, mean of the best."""
    best = np.min if is_better_low(metric) else np.max
    rows = []
    for curve in found:
        last = curve.values[:, -1]
        deviation = f"{np.std(last, ddof=1):.2g}" if len(last) > 1 else ""
        rows.append((curve.label, str(len(curve.runs)), str(curve.steps[-1]),
                     f"{np.mean(last):.4g}", deviation,
                     f"{np.mean(best(curve.values, axis=1)):.4g}"))  # fmt: skip
    return rows


def is_better_low(metric: str) -> bool:
    """Whether the metric is an error: all but accuracies, rewards and scores of words."""
    name = metric.removeprefix("validation_")
    return not any(word in name for word in ("accuracy", "exact", "reward", "f1", "bleu", "return"))
