"""Repeat copy (arXiv:1410.5401, section 4.2): a loop inside a loop.

n vectors of random bits, then how often, r, and the vectors r times, while nothing is shown; an end
marker, on a channel of its own, asks to have counted.

    input    v1 .. vn | delimiter, (r - 5.5) / 2.87 | zeros                     bits + 2 channels
    target                                          | v1 .. vn, r times | end   bits + 1

n is uniform from `shortest` to the longest that the sequence has room for with `repeats`, r from 1
to `repeats`; T >= n (repeats + 1) + 2, and padding, which is left out, follows.  r has mean 0 and
variance 1 where `repeats` is 10, as in the paper, and the same scale where it is not.

Baseline: a guess of each bit by a predictor that knows when the end is due, loss
bits log 2 sum n r / sum (n r + 1), over all n and r.
Length generalisation: longer sequences, or more `repeats`.
"""

from math import log, sqrt

import jax
import jax.numpy as jnp

from seqjax.answers import Bernoullis
from seqjax.core.ranges import Count
from seqjax.tasks.synthetic.bits import at, beside, draw_bits, lasting, where
from seqjax.tasks.task import Batch, Features, Metrics, Spec, Task, sampler

MEAN, DEVIATION = 5.5, sqrt(99 / 12)  # of the numbers from 1 to 10


def repeat_copy(*, bits: Count = 8, repeats: Count = 10, shortest: Count = 1) -> Task:
    """Vectors of `bits`, at least `shortest`, up to `repeats` times."""

    def longest(length: int) -> int:
        needed = shortest * (repeats + 1) + 2
        return lasting((length - 2) // (repeats + 1), shortest, "repeat_copy", needed, length)

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        most = longest(length)
        key_v, key_n, key_r = jax.random.split(key, 3)
        v = draw_bits(key_v, batch, most, bits)
        n = jax.random.randint(key_n, (batch, 1), shortest, most + 1, jnp.int32)
        r = jax.random.randint(key_r, (batch, 1), 1, repeats + 1, jnp.int32)
        t = jnp.arange(length, dtype=jnp.int32)[None]
        end, queried = n + n * r + 1, t == n
        there, copied = t <= end, (n < t) & (t < end)
        number = jnp.where(queried, (r.astype(jnp.float32) - MEAN) / DEVIATION, 0)
        shown = where(t < n, at(v, jnp.broadcast_to(t, there.shape)))
        y = beside(where(copied, at(v, (t - n - 1) % n)), t == end)
        due = (copied | (t == end)).astype(jnp.float32)
        return Batch(beside(shown, queried, number), y, due, present=there)

    def baseline(length: int) -> Metrics:
        lengths = range(shortest, longest(length) + 1)
        copied = [n * r for n in lengths for r in range(1, repeats + 1)]
        return {"loss": bits * log(2) * sum(copied) / (sum(copied) + len(copied))}

    spec = Spec(Features(bits + 2), Bernoullis(bits + 1, per_step=True))
    return Task("repeat_copy", spec, sample, baseline)
