"""Averages of weights: what is evaluated and handed on is a mean of the weights along the way.

    S_t = d S_{t-1} + g_t              x_t = x_{t-1} + g_t / S_t (w_t - x_{t-1})

w_t are the weights after step t (z_t in the paper of schedule_free), x_t their average, which
follows them until there is a g_t > 0.

    ema            g = 1, d = decay: over the last 1 / (1 - decay) steps or so, without bias
    polyak         g = 1, d = 1: uniform                                  Polyak & Juditsky 1992
    nt_asgd        the same, from when the validation loss was not better than the best of those n
                   and more evaluations ago                      arXiv:1708.02182, algorithm 1
    schedule_free  g_t = rate_t^2, d = 1; the gradient of step t is taken at
                   (1 - beta) w_{t-1} + beta x_{t-1}                             arXiv:2405.15682

schedule_free is for a constant rate after the warm-up, and its beta takes the place of momentum
(beta1=0 of Adam). Averages are kept in the dtype of the weights, which is float32 at least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from seqjax.core.common import accumulation_dtype
from seqjax.core.ranges import Count, Fraction, Range
from seqjax.train.config import OptimiserConfig, check_choice

Arrays = dict[str, jax.Array]
Share = Annotated[float, Range(0, below=1)]  # of the run
MEAN = "average.mean."  # what stands before the name of a parameter in a checkpoint


class Watch(NamedTuple):
    """Validation losses: the best of those before the last n, and the last n."""

    best: jax.Array
    recent: jax.Array  # [n], inf where there was none


class Mean(NamedTuple):
    """An average under way."""

    mean: Arrays  # x
    total: jax.Array  # S
    watch: Watch | None = None


@dataclass(frozen=True)
class Average:
    """gain(share of the run, rate, total) -> g_t; n: of NT-ASGD."""

    gain: Callable[[jax.Array, Any, jax.Array], Any]
    decay: float = 1.0
    beta: float = 0.0
    n: int | None = None

    def init(self, params: Arrays) -> Mean:
        kind = jnp.finfo(accumulation_dtype(*params.values())).dtype
        infinite = jnp.asarray(jnp.inf, kind)
        watch = None if self.n is None else Watch(infinite, jnp.full(self.n, infinite))
        return Mean(jax.tree.map(jnp.copy, params), jnp.zeros((), kind), watch)

    def point(self, params: Arrays, average: Mean) -> Arrays:
        """Where the gradient of the next step is taken."""
        if not self.beta:
            return params
        return jax.tree.map(lambda w, x: w + self.beta * (x - w), params, average.mean)

    def update(self, average: Mean, params: Any, share: jax.Array, rate: Any) -> Mean:
        """With the weights after a step, of this learning rate, at this share of the run."""
        gain = jnp.asarray(self.gain(share, rate, average.total), average.total.dtype)
        total = self.decay * average.total + gain
        part = gain / jnp.where(total > 0, total, 1)

        def leaf(x, w):
            return jnp.where(total > 0, x + part.astype(x.dtype) * (w - x), w)

        return average._replace(mean=jax.tree.map(leaf, average.mean, params), total=total)

    def evaluated(self, average: Mean, loss: float) -> Mean:
        """After an evaluation: NT-ASGD may begin, with the weights there are."""
        if average.watch is None:
            return average
        best, recent = average.watch
        begins = (average.total == 0) & (loss > best)
        total = jnp.where(begins, 1, average.total)
        recent, first = jnp.append(recent[1:], loss), recent[0]
        return average._replace(total=total, watch=Watch(jnp.minimum(best, first), recent))


def ema(decay: Fraction = 0.999, start: Share = 0.0) -> Average:
    return Average(lambda share, rate, total: share >= start, decay=decay)


def polyak(start: Share = 0.5) -> Average:
    return Average(lambda share, rate, total: share >= start)


def nt_asgd(n: Count = 5) -> Average:
    return Average(lambda share, rate, total: total > 0, n=n)


def schedule_free(beta: Fraction = 0.9) -> Average:
    return Average(lambda share, rate, total: rate**2, beta=beta)


AVERAGES: dict[str, Callable[..., Average]] = {
    "ema": ema,
    "polyak": polyak,
    "nt_asgd": nt_asgd,
    "schedule_free": schedule_free,
}


def averaging(config: OptimiserConfig, complete: bool = False) -> Average | None:
    """The average that a config names. complete: whether its rate is that of an object.

    Raises ValueError for unknown names and options, and for a schedule that has no use.
    """
    if config.average is None:
        return None
    make = check_choice("optimiser.average", AVERAGES, config.average)
    average = make(**config.average.options)
    if config.average.name == "schedule_free":
        if complete:
            raise ValueError(
                "optimiser.average schedule_free weighs by the learning rate, and the optimiser "
                "that was given has its own: optax.contrib.schedule_free is for it"
            )
        if config.schedule != "constant":
            raise ValueError(
                "optimiser.average schedule_free takes the place of a schedule: "
                f"optimiser.schedule must be constant, got {config.schedule!r}"
            )
    return average


def averaged(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a checkpoint by name, frozen ones too; averages where there are some."""
    found = {}
    for part in ("frozen.", "params.", MEAN):
        found |= {n.removeprefix(part): a for n, a in arrays.items() if n.startswith(part)}
    return found
