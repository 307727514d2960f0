"""Prediction of a chaotic series (Mackey & Glass 1977; Jaeger & Haas 2004), and NARMA.

Every sequence is a piece of the attractor of `series` (`seqjax.tasks.synthetic.series`), from
another start, and the answer on each step is the series `horizon` steps later:

    x float32 [B, T, D] = s_t      y float32 [B, T, D] = s_{t + horizon}

each number less the mean and over the standard deviation of the series.  Mackey-Glass has the delay
17 and one number for each unit of time.  With `series="narma"` the input is 4 u_t - 1, u_t uniform
in (0, 1/2), and the answer y_{t+1} of the tenth order, which depends on u ten steps back.

Baseline: the mean, whose mse is the variance: 1 by the scaling.  The square root of the mse is the
NRMSE of the literature.
Length generalisation: the same rule; NARMA's memory is of ten steps.
"""

from functools import cache
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.common import unknown
from seqjax.core.ranges import Range
from seqjax.tasks.synthetic.series import from_key, narma
from seqjax.tasks.task import Batch, Features, Spec, Task, Values, sampler

SERIES = {"mackey_glass": 1, "lorenz": 3, "rossler": 3, "henon": 2, "logistic": 1,
          "superposed": 1, "narma": 1}  # fmt: skip
SKIP = 500  # steps until the start is forgotten


@cache
def scale(series: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [1, 1, D] of each number, over 64 pieces of 512 steps."""
    keys = jax.random.split(jax.random.key(0), 64)
    draw = driven if series == "narma" else lambda key: (from_key(series, key, 512, SKIP),) * 2
    found = np.asarray(jax.jit(jax.vmap(draw))(keys)[1], np.float64)
    mean, deviation = found.mean((0, 1), keepdims=True), found.std((0, 1), keepdims=True)
    return mean.astype(np.float32), deviation.astype(np.float32)


def driven(key: jax.Array, steps: int = 512) -> tuple[jax.Array, jax.Array]:
    """u and y_{t+1} of NARMA-10, [steps, 1] each; y is held at 1, which it seldom reaches."""
    u = jax.random.uniform(key, (SKIP + steps + 1,), jnp.float32, 0.0, 0.5)
    y = narma(u, most=1.0)
    return u[SKIP:-1, None], y[SKIP + 1 :, None]


def mackey_glass(*, series: str = "mackey_glass", horizon: Annotated[int, Range(1)] = 1) -> Task:
    """The next number of `series`, or the one after `horizon` steps (narma: always the next)."""
    if series not in SERIES:
        raise ValueError(unknown("series", series, SERIES))
    if series == "narma" and horizon != 1:
        raise ValueError(f"narma answers with the next number: horizon = 1, got {horizon}")
    mean, deviation = scale(series)

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        keys = jax.random.split(key, batch)
        if series == "narma":
            u, y = jax.vmap(lambda key: driven(key, length))(keys)
            x, y = 4 * u - 1, (y - mean) / deviation
        else:
            s = jax.vmap(lambda key: from_key(series, key, length + horizon, SKIP))(keys)
            s = (s - mean) / deviation
            x, y = s[:, :-horizon], s[:, horizon:]
        return Batch(x, y, jnp.ones((batch, length), jnp.float32))

    size = SERIES[series]
    spec = Spec(Features(size), Values(size, per_step=True))
    return Task("mackey_glass", spec, sample, lambda length: {"loss": 1.0, "mse": 1.0})
