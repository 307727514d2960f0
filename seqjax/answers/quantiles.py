"""Quantiles of a real number, under the pinball loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.answers import metrics
from seqjax.answers.answer import Answer
from seqjax.answers.inputs import Features
from seqjax.core.ranges import Count, Range

Level = Annotated[float, Range(above=0, below=1)]


@dataclass(frozen=True)
class Quantiles(Answer):
    """The quantiles at `levels` of each of `dimension` numbers: y_hat [..., dimension levels].

    The loss is the pinball loss, averaged over levels and numbers (Koenker & Bassett 1978); crps
    is twice that. What crosses is sorted, but for the loss. Between levels a quantile is read off
    linearly, beyond the last one it is the last: so the median is predicted, and a sample drawn.
    """

    levels: tuple[Level, ...]
    per_step: bool
    dimension: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"Quantiles.levels must be one at least, rising, got {self.levels}")

    @property
    def size(self) -> int:
        return self.dimension * len(self.levels)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dimension,)

    @property
    def next_input(self) -> Features:
        return Features(self.dimension)

    def loss(self, y_hat, y):
        return jnp.mean(metrics.pinball(self._quantiles(y_hat), self._levels(y_hat), y), axis=-1)

    def measures(self, y_hat, y):
        crps = metrics.crps(self._quantiles(y_hat), self._levels(y_hat), y)
        return {"crps": jnp.mean(crps, axis=-1)}

    def predict(self, y_hat):
        quantiles = jnp.sort(self._quantiles(y_hat), axis=-1)
        median = jax.vmap(lambda q: self._at(q, 0.5))(quantiles.reshape(-1, len(self.levels)))
        return median.reshape(quantiles.shape[:-1])

    def sample(self, key, y_hat):
        u = jax.random.uniform(key, (self.dimension,), y_hat.dtype)
        return jax.vmap(self._at)(jnp.sort(self._quantiles(y_hat), axis=-1), u)

    def _at(self, quantiles, level):
        return jnp.interp(level, self._levels(quantiles), quantiles)

    def _levels(self, like):
        return jnp.asarray(np.array(self.levels), like.dtype)

    def _quantiles(self, y_hat):
        return y_hat.reshape(*y_hat.shape[:-1], self.dimension, len(self.levels))
