"""Dynamic N-grams (arXiv:1410.5401, section 4.4): a table that has to be counted anew each time.

The probability that the next bit is 1 stands, for each of the 2^(N-1) contexts of N - 1 bits, in a
table that is drawn for the sequence, from Beta(1/2, 1/2).  The first N - 1 bits are fair coins.

    input    b1 b2 .. bT            [B, T, 1], target b2 .. b_{T+1}, from the first whole context on

The best prediction, which the paper compares with, is (n_1 + 1/2) / (n_0 + n_1 + 1), n_b how often
b followed the context so far.  The paper has N = 6 and 200 bits.

Baseline: a guess, log 2: a bit is 1 half of the time.  Who knew the table would have 2 log 2 - 1.
Length generalisation: a longer sequence is more to count by.
"""

from math import log
from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.answers import Bernoullis
from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Features, Spec, Task, sampler


def dynamic_ngrams(*, order: Annotated[int, Range(1, 16)] = 6) -> Task:
    """Bits by the `order` - 1 before, for any T >= order - 1."""
    context = order - 1

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        if length < max(1, context):
            raise ValueError(f"dynamic_ngrams needs length >= {max(1, context)}, got {length}")
        key_p, key_b = jax.random.split(key)
        table = jax.random.beta(key_p, 0.5, 0.5, (batch, 2**context), jnp.float32)
        coins = jax.random.uniform(key_b, (length + 1, batch), jnp.float32)

        def step(seen, now):
            t, coin = now
            p = jnp.take_along_axis(table, seen[:, None], axis=1)[:, 0]
            bit = (coin < jnp.where(t < context, 0.5, p)).astype(jnp.int32)
            return (2 * seen + bit) % 2**context, bit

        times = jnp.arange(length + 1, dtype=jnp.int32)
        _, bits = jax.lax.scan(step, jnp.zeros(batch, jnp.int32), (times, coins))
        bits = bits.T.astype(jnp.float32)[..., None]
        mask = (times[:-1] >= context - 1).astype(jnp.float32)
        return Batch(bits[:, :-1], bits[:, 1:], jnp.broadcast_to(mask[None], (batch, length)))

    spec = Spec(Features(1), Bernoullis(1, per_step=True))
    return Task("dynamic_ngrams", spec, sample, lambda length: {"loss": log(2)})
