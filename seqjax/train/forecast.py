"""Forecasts by sampling: what comes next is drawn, read, and so on (DeepAR, arXiv:1704.04110).

    paths = sample_paths(model, x, scale, 14, paths=100, key=jax.random.key(0))
    numbers at 10, 50 and 90 %:    np.quantile(paths, [0.1, 0.5, 0.9], axis=1)

The model has an answer with a `scale` (`seqjax.answers.scaled`), and reads first, at each step, the
numbers of the step before over that scale; what else it reads is known of the days to come.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seqjax.answers import metrics
from seqjax.stacks.model import Model
from seqjax.train.processes import whole

LEVELS = (0.5, 0.8, 0.9)  # of intervals


def sample_paths(
    model: Model, x: Any, scale: Any, horizon: int, *, paths: int, key: jax.Array
) -> np.ndarray:
    """Numbers [B, paths, horizon, dimension] of the last `horizon` steps of x [B, T, F].

    x: of its last horizon - 1 steps the first `dimension` features are not looked at.
    scale: [B].
    Raises ValueError for other models, and horizons that leave no step to read.
    """
    if not model.outputs.per_step or "scale" not in model.outputs.options:
        raise ValueError(
            f"paths are drawn by answers of a scale at every step, got {model.outputs}"
        )
    if not model.causal:
        raise ValueError("only a causal model forecasts: one of its layers sees the future")
    if not 1 <= horizon < x.shape[1] or paths < 1:
        raise ValueError(
            f"paths and a horizon from 1 to {x.shape[1] - 1} are needed, of {x.shape[1]} steps: "
            f"got {paths=}, {horizon=}"
        )
    y = _paths(model, jnp.asarray(x), jnp.asarray(scale), key, horizon, paths)
    return whole(y)


@partial(jax.jit, static_argnames=("horizon", "paths"))
def _paths(model, x, scale, key, horizon, paths):
    x, scale = (jnp.repeat(v, paths, axis=0) for v in (x, scale))
    first = x.shape[1] - horizon + 1  # the input of the first step to come is known
    y_hat, h = model(x[:, :first])

    def draw(key, y_hat, scale):
        return model.outputs.sample(key, y_hat, scale=scale)

    def numbers(key, y_hat):
        return jax.vmap(draw)(jax.random.split(key, len(scale)), y_hat, scale)[:, :-1]

    def step(carry, given):
        y_hat, h = carry
        key, x = given
        z = numbers(key, y_hat)
        x = jnp.concatenate([z / scale[:, None], x[:, z.shape[1] :]], axis=1)
        y_hat, h = model(x[:, None], h)
        return (y_hat[:, 0], h), z

    keys = jax.random.split(key, horizon)
    later = jnp.swapaxes(x[:, first:], 0, 1)
    (y_hat, _), z = lax.scan(step, (y_hat[:, -1], h), (keys[:-1], later))
    z = jnp.concatenate([z, numbers(keys[-1], y_hat)[None]])  # [horizon, B paths, dimension]
    return jnp.moveaxis(z, 0, 1).reshape(-1, paths, horizon, z.shape[2])


def calibration(paths: Any, y: Any) -> dict[str, float]:
    """How y [B, horizon, dimension] lies in the paths [B, paths, horizon, dimension].

    coverage_50, _80, _90: the share of y within the central interval of the paths; crps: their
    continuous ranked probability score, in units of the mean of |y|.
    """
    y, paths = np.asarray(y, np.float64), np.asarray(paths, np.float64)
    found = {
        f"coverage_{100 * level:.0f}": metrics.coverage(paths, y, level, axis=1) for level in LEVELS
    }
    return found | {"crps": float(metrics.sample_crps(paths, y, axis=1).mean() / np.abs(y).mean())}
