"""Numbers of series of any size: what a distribution needs to know of the scale of one.

One network forecasts series whose sizes differ by orders of magnitude (DeepAR, arXiv:1704.04110,
section 3.3): it reads z / nu and answers in units of nu, a scale of each series. A scaled answer
has targets (z, nu) [..., dimension + 1], one scale for all of the `dimension` numbers; its
likelihood is that of z itself. `sample` takes the scale as an option, and what is predicted or
drawn has it, too, at the end; it is 1 if none is given.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import jax
import jax.numpy as jnp

from seqjax.answers.answer import Answer, Metrics
from seqjax.answers.inputs import Features


class Scaled(Answer):
    """Of `dimension` numbers; `scaled` unless it is None or False. mae and rmse are of the mean."""

    dimension: int
    scaled: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dimension + bool(self.scaled),)

    @property
    def options(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return ("scale",) if self.scaled else ()

    @property
    def next_input(self) -> Features | None:
        return None if self.scaled else Features(self.dimension)

    @abstractmethod
    def mean(self, y_hat: jax.Array, scale: Any) -> jax.Array:
        """[..., dimension], of a scale [..., 1]."""

    @abstractmethod
    def draw(self, key: jax.Array, y_hat: jax.Array, scale: Any) -> jax.Array:
        """Numbers [dimension] of one answer y_hat [size]."""

    def parted(self, y: jax.Array) -> tuple[jax.Array, Any]:
        """The numbers and their scale [..., 1]."""
        if not self.scaled:
            return y, jnp.ones((), y.dtype)
        scale = y[..., self.dimension :]
        return y[..., : self.dimension], jnp.where(scale > 0, scale, 1)  # 0 of what has no weight

    def predict(self, y_hat):
        return self._with_scale(self.mean(y_hat, jnp.ones((), y_hat.dtype)), 1.0)

    def sample(self, key, y_hat, scale: jax.Array | float = 1.0):
        drawn = self.draw(key, y_hat, jnp.asarray(scale, y_hat.dtype))
        return self._with_scale(drawn, scale)

    def measures(self, y_hat, y):
        y, scale = self.parted(y)
        error = self.mean(y_hat, scale) - y
        return {"mae": jnp.mean(jnp.abs(error), axis=-1), "mse": jnp.mean(error**2, axis=-1)}

    def summary(self, means: Metrics) -> Metrics:
        rest = {name: value for name, value in means.items() if name != "mse"}
        return rest | {"rmse": jnp.sqrt(means["mse"])}

    def _with_scale(self, y, scale):
        if not self.scaled:
            return y
        return jnp.concatenate([y, jnp.full_like(y[..., :1], scale)], axis=-1)
