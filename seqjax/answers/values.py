"""Real numbers, under the squared error."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from seqjax.answers.answer import Answer
from seqjax.answers.inputs import Features
from seqjax.core.ranges import Count


@dataclass(frozen=True)
class Values(Answer):
    """`dimension` real numbers; the loss is their mean squared error, mse.

    It is one point and no distribution: a sample is the answer itself.
    """

    dimension: Count
    per_step: bool

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
        return {"mse": self.loss(y_hat, y)}

    def predict(self, y_hat):
        return y_hat

    def sample(self, key, y_hat):
        return y_hat
