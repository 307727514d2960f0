"""What the host knows of a run beside its arrays: the JSON of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple

from seqjax.train.config import TrainConfig
from seqjax.train.guard import Bad

OTHERS = ("gradient_norm", "learning_rate")  # of the metrics those that are no scores


class Window(NamedTuple):
    """Sums of the metrics of some steps: constant in size, so that a checkpoint can hold it.

    With a fading factor below 1 those of a step weigh less with each step after it: of scores that
    were measured before the update on their batch, the prequential error (Dawid 1984; Gama et al.
    2013).
    """

    count: float = 0
    sums: Mapping[str, float] = MappingProxyType({})

    def add(self, metrics: Mapping[str, float], fading: float = 1) -> Window:
        sums = {name: fading * self.sums.get(name, 0.0) + v for name, v in metrics.items()}
        return Window(fading * self.count + 1, sums)

    def mean(self) -> dict[str, float]:
        return {name: total / self.count for name, total in self.sums.items()}


class Course(NamedTuple):
    """All of it is of the same step."""

    best: dict[str, float]  # metrics and step of the best evaluation
    metrics: Mapping[str, float] = MappingProxyType({})  # of the last evaluation
    evaluated: int = 0  # the step that was of
    window: Window = Window()  # metrics since the last line
    online: Window = Window()  # since the beginning: each was measured before the update
    skipped: int = 0  # steps, since the beginning
    bad: int = 0  # in a row: steps skipped, or times that it went back to one checkpoint
    rewinds: tuple[Mapping[str, float], ...] = ()  # lines of metrics, of each time it went back

    def add(self, metrics: Mapping[str, float], config: TrainConfig) -> Course:
        """After a good step with these metrics."""
        online = self.online
        if config.prequential is not None:
            scores = {name: v for name, v in metrics.items() if name not in OTHERS}
            online = online.add(scores, config.prequential)
        bad = self.bad if config.bad_step == "rewind" else 0
        return self._replace(window=self.window.add(metrics), online=online, bad=bad)

    def measured(self, metrics: Mapping[str, float], step: int, config: TrainConfig) -> Course:
        """After an evaluation."""
        sign, value = -1 if config.best_is == "highest" else 1, metrics[config.best_by]
        best = self.best
        if sign * value < sign * best.get(config.best_by, sign * inf):
            best = {"loss": metrics["loss"], config.best_by: value, "step": step}
        return self._replace(metrics=metrics, evaluated=step, best=best)

    def means(self) -> dict[str, float]:
        """A line of metrics."""
        online = {f"prequential_{name}": value for name, value in self.online.mean().items()}
        return {**self.window.mean(), **online}

    def rewound(self, bad: Bad, step: int) -> Course:
        """At `step`, which a bad one led back to."""
        row = {"step": step, **bad.record("rewind", bad.step)}
        return self._replace(bad=self.bad + 1, rewinds=(*self.rewinds, row))

    @classmethod
    def of(cls, extra: Mapping[str, Any]) -> Course:
        """From what `extra` made; a checkpoint of another version may lack some."""
        found = {name: extra[name] for name in cls._fields if name in extra}
        for name in {"window", "online"} & found.keys():
            found[name] = Window(**found[name])
        return cls(**found)._replace(rewinds=tuple(found.get("rewinds", ())))

    def extra(self) -> dict[str, Any]:
        windows = {
            name: {"count": kept.count, "sums": dict(kept.sums)}
            for name, kept in (("window", self.window), ("online", self.online))
        }
        return {**self._asdict(), **windows, "metrics": dict(self.metrics),
                "rewinds": [dict(row) for row in self.rewinds]}  # fmt: skip
