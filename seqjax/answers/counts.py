"""Counts 0, 1, 2, ...: Poisson and negative binomial (DeepAR, arXiv:1704.04110, section 3.1).

Targets are whole numbers kept as floats. The loss is the NLL, summed over `dimension` counts;
metrics: mae and rmse of the mean mu, which they predict: softplus(y_hat), were nothing scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from seqjax.answers.scaled import Scaled
from seqjax.answers.special import log_beta
from seqjax.core.ranges import Count

LEAST_ALPHA = 1e-6  # beyond, the negative binomial is the Poisson to float32
LARGEST_LOG_MEAN = 80.0  # the mean of gluonts is an exponential; no float32 overflows


@dataclass(frozen=True)
class Poisson(Scaled):
    """p(y) = mu^y exp(-mu) / y!"""

    dimension: Count
    per_step: bool

    scaled: ClassVar[None] = None

    @property
    def size(self) -> int:
        return self.dimension

    def loss(self, y_hat, y):
        nll = jax.nn.softplus(y_hat) - y * log_softplus(y_hat) + gammaln(y + 1)
        return jnp.sum(nll, axis=-1)

    def mean(self, y_hat, scale):
        del scale
        return jax.nn.softplus(y_hat)

    def draw(self, key, y_hat, scale):
        return jax.random.poisson(key, self.mean(y_hat, scale)).astype(y_hat.dtype)


@dataclass(frozen=True)
class NegativeBinomial(Scaled):
    """Mean mu and variance mu + alpha mu^2, y_hat = two hats [2 dimension]:

    p(y) = G(y + 1/alpha) / (y! G(1/alpha)) (1 / (1 + alpha mu))^(1/alpha)
           (alpha mu / (1 + alpha mu))^y

    scaled: how a scale nu acts on the softplus of the hats.
        paper    mu = nu softplus(mu_hat)    alpha = softplus(alpha_hat) / sqrt(nu)    section 3.3
        gluonts  1 / alpha = softplus(r_hat)    log(alpha mu) = logit_hat + log nu
    """

    dimension: Count
    per_step: bool
    scaled: Literal["paper", "gluonts"] | None = None

    @property
    def size(self) -> int:
        return 2 * self.dimension

    def loss(self, y_hat, y):
        y, nu = self.parted(y)
        log_mu, r = self._parts(y_hat, nu)
        # G(y + r) / (y! G(r)) = 1 / ((y + r) B(r, y + 1)), which does not cancel at large r
        ways = -log_beta(r, y + 1) - jnp.log(y + r)
        logit = log_mu - jnp.log(r)
        nll = -ways + r * jax.nn.softplus(logit) + y * jax.nn.softplus(-logit)
        return jnp.sum(nll, axis=-1)

    def mean(self, y_hat, scale):
        log_mu, _ = self._parts(y_hat, scale)
        return jnp.exp(jnp.minimum(log_mu, LARGEST_LOG_MEAN))

    def draw(self, key, y_hat, scale):
        """Poisson of mu alpha Gamma(1/alpha)."""
        of_rate, of_count = jax.random.split(key)
        _, r = self._parts(y_hat, scale)
        rate = self.mean(y_hat, scale) / r * jax.random.gamma(of_rate, r, dtype=r.dtype)
        return jax.random.poisson(of_count, rate).astype(y_hat.dtype)

    def _parts(self, y_hat, nu):
        """log mu and r = 1 / alpha."""
        one, two = jnp.split(y_hat, 2, axis=-1)
        if self.scaled == "gluonts":
            r = jnp.clip(jax.nn.softplus(one), LEAST_ALPHA, 1 / LEAST_ALPHA)
            return jnp.log(r) + two + jnp.log(nu), r
        alpha = jnp.maximum(jax.nn.softplus(two) / jnp.sqrt(nu), LEAST_ALPHA)
        return log_softplus(one) + jnp.log(nu), 1 / alpha


def log_softplus(x: jax.Array) -> jax.Array:
    """log(softplus(x)), which tends to x at -inf."""
    low = -40.0  # from here on it is x, to float64
    return jnp.where(x < low, x, jnp.log(jax.nn.softplus(jnp.maximum(x, low))))
