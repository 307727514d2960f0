"""Copy of a neural Turing machine (arXiv:1410.5401, section 4.1): vectors of bits, of any number.

n vectors of random bits, a delimiter on a channel of its own, and the vectors again, while nothing
is shown.  n is uniform from `shortest` to the longest that the sequence has room for.

    input    v1 .. vn | delimiter | zeros, n times       T >= 2 n + 1, bits + 1 channels
    target                        | v1 .. vn             bits

Steps after them are padding, which is left out.  The row `copy` is another task, with symbols and a
delay.  The paper has 8 bits, n from 1 to 20 in training, and up to 120 after it.

Baseline: a guess of each bit, loss bits log 2 a step.
Length generalisation: longer sequences than the ones trained on, shortest = (length - 1) / 2.
"""

from math import log

import jax
import jax.numpy as jnp

from seqjax.answers import Bernoullis
from seqjax.core.ranges import Count
from seqjax.tasks.synthetic.bits import at, beside, draw_bits, lasting, where
from seqjax.tasks.task import Batch, Features, Spec, Task, sampler


def bit_copy(*, bits: Count = 8, shortest: Count = 1) -> Task:
    """Up to (T - 1) / 2 vectors of `bits`, at least `shortest`."""

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        most = lasting((length - 1) // 2, shortest, "bit_copy", 2 * shortest + 1, length)
        key_v, key_n = jax.random.split(key)
        v = draw_bits(key_v, batch, most, bits)
        n = jax.random.randint(key_n, (batch, 1), shortest, most + 1, jnp.int32)
        t = jnp.arange(length, dtype=jnp.int32)[None]
        there, due = t <= 2 * n, (n < t) & (t <= 2 * n)
        x = beside(where(t < n, at(v, jnp.broadcast_to(t, there.shape))), t == n)
        y = where(due, at(v, t - n - 1))
        return Batch(x, y, due.astype(jnp.float32), present=there)

    spec = Spec(Features(bits + 1), Bernoullis(bits, per_step=True))
    return Task("bit_copy", spec, sample, lambda length: {"loss": bits * log(2)})
