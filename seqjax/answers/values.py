"""Real numbers, under the squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
import numpy as np

from seqjax.answers.answer import Answer, Metrics, Targets
from seqjax.answers.inputs import Features
from seqjax.core.ranges import Count, Range


@dataclass(frozen=True)
class Values(Answer):
    """`dimension` real numbers; the loss is their mean squared error, mse. Metrics: mae beside it.

    It is one point and no distribution: a sample is the answer itself.
    deviation: by which targets were divided; then rmse, in their own unit, is a metric too.
    """

    dimension: Count
    per_step: bool
    deviation: Annotated[float, Range(above=0)] | None = None

    @property
    def size(self) -> int:
        return self.dimension

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dimension,)

    @property
    def next_input(self) -> Features:
        return Features(self.dimension)

    def loss(self, y_hat, y):
        return jnp.mean((y_hat - y) ** 2, axis=-1)

    def measures(self, y_hat, y):
        return {"mse": self.loss(y_hat, y), "mae": jnp.mean(jnp.abs(y_hat - y), axis=-1)}

    def summary(self, means: Metrics) -> Metrics:
        rest = {} if self.deviation is None else {"rmse": self.deviation * means["mse"] ** 0.5}
        return means | rest

    def baseline(self, train: Targets, held_out: Targets) -> Metrics:
        """The mean."""
        (y, mask), (new, weights) = train, held_out
        mean = np.average(y, axis=tuple(range(mask.ndim)), weights=_each(mask, y))
        mse = float(np.average((new - mean) ** 2, weights=_each(weights, new)))
        return {"loss": mse, "mse": mse}

    def predict(self, y_hat):
        return y_hat

    def sample(self, key, y_hat):
        return y_hat


def _each(mask: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The weight of each number of the targets."""
    return np.broadcast_to(mask[..., None], y.shape)
