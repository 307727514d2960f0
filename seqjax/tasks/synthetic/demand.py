"""Demand for many items, made up as in DeepAR (arXiv:1704.04110): counts over three magnitudes.

An item sells l a day in the mean, of which the logarithm is uniform from that of 1 to that of 1000,
more on some days of the week than on others:

    z_t ~ negative binomial of mean mu_t = l (1 + a sin(2 pi (t / 7 + b))), a in [0, 0.9]
    and variance mu_t + mu_t^2 / 5

A window has T days, of which the last `horizon` are to be forecast. The scale of a window is the
paper's, nu = 1 + the mean of z over the days that are seen, and

    x_t = (z_{t-1} / nu, log nu, sin and cos of the day of the week)      float32 [B, T, 4]
    y_t = (z_t, nu)                                                       float32 [B, T, 2]

All T days are learned from. What is to come is not known when it is forecast: there z_{t-1} is a
sample of the model's own (`seqjax.train.forecast`), and `seqjax eval` prints how many of the
numbers fall into the intervals of such paths.

Metrics: the negative log likelihood, mae and rmse of the mean.
Baseline: the same counts of mean nu on all days, of the variance that fits best.
Length generalisation: more days that are seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.answers import Gaussian, NegativeBinomial, StudentT
from seqjax.core.ranges import Count
from seqjax.tasks.task import Batch, Features, Metrics, Spec, Task, sampler

LEAST, LARGEST = 1.0, 1000.0  # l
WEEK, LARGEST_SWING = 7, 0.9
SHAPE = 5.0  # 1 / alpha
ANSWERS = {
    "paper": NegativeBinomial(1, per_step=True, scaled="paper"),
    "gluonts": NegativeBinomial(1, per_step=True, scaled="gluonts"),
    "gaussian": Gaussian(1, per_step=True, scaled=True),
    "student_t": StudentT(1, per_step=True, scaled=True),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Demand(Task):
    """The task of `demand`."""

    horizon: int

    @property
    def drawn(self) -> int:
        return self.horizon


def demand(
    *,
    answer: Literal["paper", "gluonts", "gaussian", "student_t"] = "paper",
    horizon: Count = 14,
) -> Demand:
    """The next day of each item, for any T.

    answer: negative binomial, scaled as in the paper or in gluonts; Gaussian or Student's t.
    horizon: days to forecast, the last ones
    """

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        if length <= horizon:
            raise ValueError(f"demand has more days than its horizon of {horizon}, got {length}")
        of_mean, of_counts = jax.random.split(key)
        mu, day = means(of_mean, batch, length + 1)
        of_rate, of_count = jax.random.split(of_counts)
        rate = mu / SHAPE * jax.random.gamma(of_rate, SHAPE, mu.shape, jnp.float32)
        z = jax.random.poisson(of_count, rate).astype(jnp.float32)
        before, z, day = z[:, :-1], z[:, 1:], day[:, 1:]
        nu = 1 + jnp.mean(z[:, : length - horizon], axis=1, keepdims=True)
        nu = jnp.broadcast_to(nu, z.shape)
        x = jnp.stack([before / nu, jnp.log(nu), jnp.sin(day), jnp.cos(day)], axis=-1)
        return Batch(x, jnp.stack([z, nu], axis=-1), jnp.ones(z.shape, jnp.float32))

    def baseline(length: int) -> Metrics:
        return constant(sample(jax.random.key(0), 512, length))

    spec = Spec(Features(4), ANSWERS[answer])
    return Demand("demand", spec, sample, baseline, horizon=horizon)


def means(key: jax.Array, batch: int, length: int) -> tuple[jax.Array, jax.Array]:
    """mu [B, T] and the day of the week as an angle [B, T]; weeks begin on any day."""
    keys = jax.random.split(key, 4)

    def uniform(key, low, high):
        return jax.random.uniform(key, (batch, 1), jnp.float32, low, high)

    log_l = uniform(keys[0], np.log(LEAST), np.log(LARGEST))
    swing, phase = uniform(keys[1], 0, LARGEST_SWING), uniform(keys[2], 0, 2 * np.pi)
    first = jax.random.randint(keys[3], (batch, 1), 0, WEEK, jnp.int32)
    day = (first + jnp.arange(length, dtype=jnp.int32)[None]).astype(jnp.float32)
    day = day * (2 * np.pi / WEEK)
    return jnp.exp(log_l) * (1 + swing * jnp.sin(day + phase)), day


def constant(batch: Batch) -> Metrics:
    """The loss of counts of mean nu, at the best of some alpha, and the errors of nu."""
    z, nu = batch.y[..., :1], batch.y[..., 1:]
    alphas = jnp.asarray(2.0 ** np.arange(-4, 2, 0.25), jnp.float32)
    answer = NegativeBinomial(1, per_step=True, scaled="paper")

    def loss(alpha):
        alpha = alpha * jnp.sqrt(nu)  # which the answer divides by
        hats = [jnp.full_like(nu, np.log(np.expm1(1))), alpha + jnp.log(-jnp.expm1(-alpha))]
        return jnp.mean(answer.loss(jnp.concatenate(hats, axis=-1), batch.y))

    losses = jax.jit(jax.vmap(loss))(alphas)
    error = nu - z
    return {
        "loss": float(jnp.min(losses)),
        "mae": float(jnp.mean(jnp.abs(error))),
        "rmse": float(jnp.sqrt(jnp.mean(error**2))),
    }
