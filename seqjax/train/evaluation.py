"""The compiled evaluation: what a model scores on the validation batches of a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from seqjax.tasks import Batch, Task
from seqjax.train.average import Arrays
from seqjax.train.cache import NeuralCache
from seqjax.train.config import Config, TaskConfig
from seqjax.train.layout import ONE_DEVICE, Layout

if TYPE_CHECKING:
    from seqjax.train.step import Rebuild


def make_evaluate(
    config: Config,
    task: Task,
    rebuild: Rebuild,
    cache: NeuralCache | None = None,
    *,
    layout: Layout = ONE_DEVICE,
) -> Evaluation:
    """evaluate(params, frozen) -> mean metrics of the validation batches.

    cache: beside a language model.
    """

    @jax.jit
    def start(params, frozen):
        model, batch = rebuild(params, frozen), config.task.batch
        return model.start(batch) if cache is None else cache.start(model, batch)

    @jax.jit
    def measure(params, frozen, batch, carry):
        model = rebuild(params, frozen)
        batch = task.collect(model, batch)
        run = model.scored if cache is None else partial(cache, model)
        with layout.inside():
            answer, carry = run(batch.x, carry, **batch.beside)
        metrics = task.score(answer, batch)
        weights = dict.fromkeys(metrics, jnp.sum(batch.mask)) | task.weights(batch)
        return metrics, {name: weights[name] for name in metrics}, carry

    return Evaluation(config.task, task, layout, start, measure)


@dataclass(frozen=True)
class Evaluation:
    """The validation batches of a task, and the programs that score a model on them."""

    config: TaskConfig
    task: Task
    layout: Layout
    start: Any
    measure: Any

    def __call__(self, params: Arrays, frozen: Arrays) -> dict[str, float]:
        return self.unless_stopped(None, params, frozen) or {}

    def unless_stopped(self, stop: Any, params: Arrays, frozen: Arrays) -> dict[str, float] | None:
        """The same; None if in the meantime `stop.signal` was set."""
        carry = first = self.start(params, frozen)
        sums, totals = Counter(), Counter()
        for batch in self.batches():
            if stop is not None and stop.signal:
                return None
            batch = self.layout.batch(batch)
            metrics, weights, after = self.measure(params, frozen, batch, carry)
            carry = after if self.task.validation_carries_state else first
            totals.update({name: float(weight) for name, weight in weights.items()})
            sums.update({name: float(v) * float(weights[name]) for name, v in metrics.items()})
        means = {name: value / (totals[name] or 1) for name, value in sums.items()}
        return {name: float(value) for name, value in self.task.summary(means).items()}

    def batches(self) -> Iterator[Batch]:
        c = self.config
        return self.task.validation(c.batch, c.evaluation_length or c.length, c.evaluation_batches)

    def compile(self, params: Arrays, frozen: Arrays) -> None:
        """Compile, without running it, what a call runs first."""
        self.start.lower(params, frozen).compile()
        carry = jax.eval_shape(self.start, params, frozen)
        batch = self.layout.batch(next(self.batches()))
        self.measure.lower(params, frozen, batch, carry).compile()

    def trace(self, params: Any, frozen: Any, batch: Batch) -> Sequence[str]:
        """Trace, for arrays of these shapes, what a call of them will run: the metrics it has."""
        carry = jax.eval_shape(self.start, params, frozen)
        found = self.measure.trace(params, frozen, batch, carry).out_info[0]
        return list(jax.eval_shape(self.task.summary, found))
