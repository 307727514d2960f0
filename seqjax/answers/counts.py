"""Counts 0, 1, 2, ...: Poisson and negative binomial (DeepAR, arXiv:1704.04110, section 3.1).

Targets are whole numbers kept as floats. The loss is the NLL, summed over `dimension` counts;
metrics: mae and rmse of the mean mu = softplus(y_hat), which they predict.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln, gammaln

from seqjax.answers.answer import Answer, Metrics
from seqjax.answers.inputs import Features
from seqjax.core.ranges import Count

LEAST_ALPHA = 1e-6  # beyond, the negative binomial is the Poisson to float32


@dataclass(frozen=True)
class _Counts(Answer):
    dimension: Count
    per_step: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dimension,)

    @property
    def next_input(self) -> Features:
        return Features(self.dimension)

    def predict(self, y_hat):
        return jax.nn.softplus(y_hat[..., : self.dimension])

    def measures(self, y_hat, y):
        error = self.predict(y_hat) - y
        return {"mae": jnp.mean(jnp.abs(error), axis=-1), "mse": jnp.mean(error**2, axis=-1)}

    def summary(self, means: Metrics) -> Metrics:
        rest = {name: value for name, value in means.items() if name != "mse"}
        return rest | {"rmse": jnp.sqrt(means["mse"])}


@dataclass(frozen=True)
class Poisson(_Counts):
    """p(y) = mu^y exp(-mu) / y!"""

    @property
    def size(self) -> int:
        return self.dimension

    def loss(self, y_hat, y):
        nll = jax.nn.softplus(y_hat) - y * log_softplus(y_hat) + gammaln(y + 1)
        return jnp.sum(nll, axis=-1)

    def sample(self, key, y_hat):
        return jax.random.poisson(key, self.predict(y_hat)).astype(y_hat.dtype)


@dataclass(frozen=True)
class NegativeBinomial(_Counts):
    """Mean mu and variance mu + alpha mu^2, alpha = softplus(alpha_hat), y_hat = (mu, alpha) hats:

    p(y) = G(y + 1/alpha) / (y! G(1/alpha)) (1 / (1 + alpha mu))^(1/alpha)
           (alpha mu / (1 + alpha mu))^y
    """

    @property
    def size(self) -> int:
        return 2 * self.dimension

    def loss(self, y_hat, y):
        mu, r = self._parts(y_hat)
        # G(y + r) / (y! G(r)) = 1 / ((y + r) B(r, y + 1)), which does not cancel at large r
        ways = -betaln(r, y + 1) - jnp.log(y + r)
        log_mu = log_softplus(y_hat[..., : self.dimension])
        nll = -ways + r * jnp.log1p(mu / r) - y * (log_mu - jnp.log(r + mu))
        return jnp.sum(nll, axis=-1)

    def sample(self, key, y_hat):
        """Poisson of mu alpha Gamma(1/alpha)."""
        of_rate, of_count = jax.random.split(key)
        mu, r = self._parts(y_hat)
        rate = mu / r * jax.random.gamma(of_rate, r)
        return jax.random.poisson(of_count, rate).astype(y_hat.dtype)

    def _parts(self, y_hat):
        alpha = jnp.maximum(jax.nn.softplus(y_hat[..., self.dimension :]), LEAST_ALPHA)
        return self.predict(y_hat), 1 / alpha


def log_softplus(x: jax.Array) -> jax.Array:
    """log(softplus(x)), which tends to x at -inf."""
    low = -40.0  # from here on it is x, to float64
    return jnp.where(x < low, x, jnp.log(jax.nn.softplus(jnp.maximum(x, low))))
