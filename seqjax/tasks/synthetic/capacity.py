"""The capacity task of Legendre memory units (Voelker et al., NeurIPS 2019): a sliding window.

The input is white noise, and the answer on each step is what it was at `delays` times, evenly
spaced over the last `window` steps:

    x_t ~ N(0, 1)                 y_t = (x_{t-d_1}, .., x_{t-d_n}),   d_i = i window / delays
    x float32 [B, T, 1]           y float32 [B, T, delays]

Only steps that have a whole window behind them count.  With `bandwidth` < 1 the noise is a random
combination of the lowest share of the frequencies of the sequence, of mean square 1: it then can
be held in fewer numbers than the window has steps, which is what that paper measures.

Baseline: 0, the mean of the input, has mse 1, its variance.
Length generalisation: the window is as long as before; `window` asks for more memory.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Features, Spec, Task, Values, sampler


def capacity(
    *,
    window: Annotated[int, Range(1)] = 50,
    delays: Annotated[int, Range(1)] = 10,
    bandwidth: Annotated[float, Range(above=0, high=1)] = 1.0,
) -> Task:
    """The input at `delays` <= `window` times of the last `window` steps, for any T > window."""
    if delays > window:
        raise ValueError(f"capacity has at most one delay a step: delays = {delays} > {window}")
    back = tuple((i + 1) * window // delays for i in range(delays))

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        if length <= window:
            raise ValueError(f"capacity of a window of {window} needs more steps, got {length}")
        x = jax.random.normal(key, (batch, length), jnp.float32)
        if bandwidth < 1:
            waves = jnp.fft.rfft(x)
            kept = max(2, round(bandwidth * waves.shape[1]))
            waves = jnp.where(jnp.arange(waves.shape[1])[None] < kept, waves, 0)
            x = jnp.fft.irfft(waves, length)
            x = x / jnp.sqrt(jnp.mean(x**2, axis=1, keepdims=True))
        y = jnp.stack([jnp.pad(x, ((0, 0), (d, 0)))[:, :length] for d in back], axis=2)
        mask = (jnp.arange(length) >= window).astype(jnp.float32)
        return Batch(x[..., None], y, jnp.broadcast_to(mask, (batch, length)))

    spec = Spec(Features(1), Values(delays, per_step=True))
    return Task("capacity", spec, sample, lambda length: {"loss": 1.0, "mse": 1.0})
