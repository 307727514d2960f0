"""Task 2b of Hochreiter & Schmidhuber (1997): long lags without local regularities.

The first step is one of two symbols, x or y, and every later one a distractor that is drawn
uniformly; at the end of the sequence the answer is which symbol was first.  Here with vectors:

    u_1 = (1, 0, .., 0) or (-1, 0, .., 0)      u_t = a random one-hot vector, t > 1
    x float32 [B, T, inputs]                   y int32 [B]: 1 if the first number of u_1 is 1

A distractor may be (1, 0, .., 0), too, so that nothing but the place tells the first step apart.
The original repeats the first symbol before the end; here it does not.

Baseline: a guess, accuracy 1/2 and loss log 2.
Length generalisation: the same bit over a longer time.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Classes, Features, Spec, Task, sampler, uniform_baseline


def lstm_2b(*, inputs: Annotated[int, Range(2)] = 8) -> Task:
    """The sign of the first of `inputs` numbers of the first step, for any T >= 2."""

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        if length < 2:
            raise ValueError(f"lstm_2b needs a step to forget in: length >= 2, got {length}")
        key_y, key_u = jax.random.split(key)
        y = jax.random.randint(key_y, (batch,), 0, 2, jnp.int32)
        symbol = jax.random.randint(key_u, (batch, length), 0, inputs, jnp.int32)
        first = (2 * y - 1)[:, None] * jax.nn.one_hot(0, inputs, dtype=jnp.int32)[None]
        x = (
            jax.nn.one_hot(symbol, inputs, dtype=jnp.float32)
            .at[:, 0]
            .set(first.astype(jnp.float32))
        )
        return Batch(x, y, jnp.ones(batch, jnp.float32))

    spec = Spec(Features(inputs), Classes(2, per_step=False))
    return Task("lstm_2b", spec, sample, lambda length: uniform_baseline(2))
