"""Mixture densities (Graves 2013, arXiv:1308.0850, section 4): a number, or the strokes of a pen.

M components; hats are what the head returns. In both

    pi = softmax(pi_hat)    mu = mu_hat    sigma = exp(sigma_hat)               (eqs 19-21)

with sigma_hat kept within [-10, 10], outside of which floats end. At a `temperature` tau a sample
comes from softmax(pi_hat / tau) and sigma^2 tau (arXiv:1704.03477); at 0 it is the mean of
the likeliest component, which is also what they predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.answers.answer import Answer, Metrics, Targets
from seqjax.answers.inputs import Features
from seqjax.core.ranges import Count

LARGEST_LOG_SIGMA = 10.0
LARGEST_RHO_HAT = 5.0  # 1 - rho^2 > 1.8e-4


@dataclass(frozen=True)
class Mixture(Answer):
    """One real number from a mixture of M = `components` Gaussians.

    y_hat = (pi_hat, mu_hat, sigma_hat) [3 M]      loss = -log sum_j pi_j N(y; mu_j, sigma_j)
    """

    components: Count
    per_step: bool

    shape = (1,)
    options = ("temperature",)

    @property
    def size(self) -> int:
        return 3 * self.components

    @property
    def next_input(self) -> Features:
        return Features(1)

    def loss(self, y_hat, y):
        pi_hat, mu, log_sigma = _parts(y_hat, 3)
        z = (y - mu) * jnp.exp(-log_sigma)
        return -_log_mixture(pi_hat, -(z**2) / 2 - log_sigma - log(2 * pi) / 2)

    def predict(self, y_hat):
        pi_hat, mu, _ = _parts(y_hat, 3)
        return _take(mu, jnp.argmax(pi_hat, axis=-1))[..., None]

    def sample(self, key, y_hat, temperature: jax.Array | float = 1.0):
        which, noise = jax.random.split(key)
        pi_hat, mu, log_sigma = _parts(y_hat, 3)
        j = jax.random.categorical(which, pi_hat / temperature)
        sigma = jnp.exp(log_sigma[j]) * jnp.sqrt(temperature)
        return (mu[j] + sigma * jax.random.normal(noise, (), y_hat.dtype))[None]


@dataclass(frozen=True)
class Strokes(Answer):
    """A pen's offset (x_1, x_2) and whether it is lifted after, x_3 in {0, 1}: eqs 15-26.

        y_hat = (e_hat, pi_hat, mu_hat_1, mu_hat_2, sigma_hat_1, sigma_hat_2, rho_hat)  [1 + 6 M]
        e = 1 / (1 + exp(e_hat))    rho = tanh(rho_hat)                            (eqs 18, 22)
        loss = -log sum_j pi_j N(x; mu_j, sigma_j, rho_j) - log(e if x_3 else 1 - e)   (eq 26)

    M = `components` bivariate Gaussians; rho_hat is kept within [-5, 5].
    """

    components: Count
    per_step: bool

    shape = (3,)
    options = ("temperature",)

    @property
    def size(self) -> int:
        return 1 + 6 * self.components

    @property
    def next_input(self) -> Features:
        return Features(3)

    def loss(self, y_hat, y):
        e_hat, (pi_hat, mu_1, mu_2, log_1, log_2, rho_hat) = self._parts(y_hat)
        z_1 = (y[..., 0:1] - mu_1) * jnp.exp(-log_1)
        z_2 = (y[..., 1:2] - mu_2) * jnp.exp(-log_2)
        rho = jnp.tanh(rho_hat)
        left = 1 - rho**2
        z = z_1**2 + z_2**2 - 2 * rho * z_1 * z_2  # eq 25
        log_n = -z / (2 * left) - log(2 * pi) - log_1 - log_2 - jnp.log(left) / 2  # eq 24
        lifted = jax.nn.softplus(jnp.where(y[..., 2] > 0, e_hat, -e_hat))
        return lifted - _log_mixture(pi_hat, log_n)

    def baseline(self, train: Targets, held_out: Targets) -> Metrics:
        """The loss of one Gaussian and of the frequency of lifting, one yes and one no more."""
        (y, mask), (new, weights) = ((y.reshape(-1, 3).astype(np.float64), mask.ravel())
                                     for y, mask in (train, held_out))  # fmt: skip
        covariance = np.cov(y[:, :2].T, aweights=mask, ddof=0) + 1e-8 * np.eye(2)
        away = new[:, :2] - np.average(y[:, :2], axis=0, weights=mask)
        distance = (away @ np.linalg.inv(covariance) * away).sum(-1)
        p = (mask @ y[:, 2] + 1) / (mask.sum() + 2)
        nll = distance / 2 + log(2 * pi) + np.linalg.slogdet(covariance)[1] / 2
        nll -= np.where(new[:, 2] > 0, np.log(p), np.log1p(-p))
        return {"loss": float(np.average(nll, weights=weights))}

    def predict(self, y_hat):
        e_hat, (pi_hat, mu_1, mu_2, *_) = self._parts(y_hat)
        j = jnp.argmax(pi_hat, axis=-1)
        pen = (e_hat < 0).astype(y_hat.dtype)
        return jnp.stack([_take(mu_1, j), _take(mu_2, j), pen], axis=-1)

    def sample(self, key, y_hat, temperature: jax.Array | float = 1.0):
        which, noise, lift = jax.random.split(key, 3)
        e_hat, (pi_hat, mu_1, mu_2, log_1, log_2, rho_hat) = self._parts(y_hat)
        j = jax.random.categorical(which, pi_hat / temperature)
        n_1, n_2 = jax.random.normal(noise, (2,), y_hat.dtype) * jnp.sqrt(temperature)
        rho = jnp.tanh(rho_hat[j])
        x_1 = mu_1[j] + jnp.exp(log_1[j]) * n_1
        x_2 = mu_2[j] + jnp.exp(log_2[j]) * (rho * n_1 + jnp.sqrt(1 - rho**2) * n_2)
        pen = jax.random.bernoulli(lift, jax.nn.sigmoid(-e_hat / temperature))
        return jnp.stack([x_1, x_2, pen.astype(y_hat.dtype)])

    def _parts(self, y_hat):
        pi_hat, mu_1, mu_2, *rest = jnp.split(y_hat[..., 1:], 6, axis=-1)
        log_1, log_2 = (_within(s, LARGEST_LOG_SIGMA) for s in rest[:2])
        return y_hat[..., 0], (pi_hat, mu_1, mu_2, log_1, log_2, _within(rest[2], LARGEST_RHO_HAT))


def _parts(y_hat, count):
    *parts, sigma_hat = jnp.split(y_hat, count, axis=-1)
    return *parts, _within(sigma_hat, LARGEST_LOG_SIGMA)


def _within(x, end):
    return jnp.clip(x, -end, end)


def _log_mixture(pi_hat, log_n):
    return jax.nn.logsumexp(jax.nn.log_softmax(pi_hat, axis=-1) + log_n, axis=-1)


def _take(values, j):
    return jnp.take_along_axis(values, j[..., None], axis=-1)[..., 0]
