"""Real numbers by the parameters of a distribution: Gaussian, and Student's t with heavier tails.

    mu = nu mu_hat        sigma = nu softplus(sigma_hat)        nu the scale, 1 unless `scaled`

(DeepAR, arXiv:1704.04110, section 3.1). Softplus is no less than the rounding of its dtype. The
loss is the negative log likelihood, summed over the `dimension` numbers; metrics: mae and rmse of
mu.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi

import jax
import jax.numpy as jnp

from seqjax.answers.scaled import Scaled
from seqjax.answers.special import log_beta
from seqjax.core.ranges import Count


@dataclass(frozen=True)
class Gaussian(Scaled):
    """y ~ N(mu, sigma^2), y_hat = (mu, sigma) hats [2 dimension]."""

    dimension: Count
    per_step: bool
    scaled: bool = False

    @property
    def size(self) -> int:
        return 2 * self.dimension

    def loss(self, y_hat, y):
        y, nu = self.parted(y)
        mu, sigma = jnp.split(y_hat, 2, axis=-1)
        sigma = nu * positive(sigma)
        z = (y - nu * mu) / sigma
        return jnp.sum(z**2 / 2 + jnp.log(sigma) + log(2 * pi) / 2, axis=-1)

    def mean(self, y_hat, scale):
        return scale * y_hat[..., : self.dimension]

    def draw(self, key, y_hat, scale):
        mu, sigma = jnp.split(y_hat, 2)
        return scale * (mu + positive(sigma) * jax.random.normal(key, mu.shape, mu.dtype))


@dataclass(frozen=True)
class StudentT(Scaled):
    """y = mu + sigma t, t of df = 2 + softplus(df_hat) degrees of freedom, so that its variance is
    finite; y_hat = (df, mu, sigma) hats [3 dimension], as in gluonts.

    p(t) = (1 + t^2 / df)^(-(df + 1) / 2) / (sqrt(df) B(1/2, df/2))
    """

    dimension: Count
    per_step: bool
    scaled: bool = False

    @property
    def size(self) -> int:
        return 3 * self.dimension

    def loss(self, y_hat, y):
        y, nu = self.parted(y)
        df, mu, sigma = jnp.split(y_hat, 3, axis=-1)
        df, sigma = self.degrees(df), nu * positive(sigma)
        t = (y - nu * mu) / sigma
        tail = (df + 1) / 2 * jnp.log1p(t**2 / df)
        half = jnp.full_like(df, 0.5)
        return jnp.sum(tail + jnp.log(df) / 2 + log_beta(half, df / 2) + jnp.log(sigma), axis=-1)

    def mean(self, y_hat, scale):
        return scale * y_hat[..., self.dimension : 2 * self.dimension]

    def draw(self, key, y_hat, scale):
        df, mu, sigma = jnp.split(y_hat, 3)
        return scale * (
            mu + positive(sigma) * jax.random.t(key, self.degrees(df), mu.shape, mu.dtype)
        )

    @staticmethod
    def degrees(df_hat: jax.Array) -> jax.Array:
        return 2 + jax.nn.softplus(df_hat)


def positive(x: jax.Array) -> jax.Array:
    return jnp.maximum(jax.nn.softplus(x), jnp.finfo(x.dtype).eps)
