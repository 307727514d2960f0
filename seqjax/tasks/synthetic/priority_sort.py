"""Priority sort (arXiv:1410.5401, section 4.5): the most urgent first.

n vectors of random bits, each with a priority uniform in [-1, 1] on a channel of its own; after a
delimiter those `answered` of the highest priority are due, from the highest down.

    input    v1, p1 .. vn, pn | delimiter, zeros        n + 1 + answered steps, bits + 2 channels
    target                               | sorted       bits

The paper has n = 20 and 16 answers.

Baseline: a guess of each bit, loss bits log 2 a step.
Length generalisation: more vectors to choose from, n = length - answered - 1.
"""

from math import log

import jax
import jax.numpy as jnp

from seqjax.answers import Bernoullis
from seqjax.core.ranges import Count
from seqjax.tasks.synthetic.bits import at, beside, draw_bits, lasting
from seqjax.tasks.task import Batch, Features, Spec, Task, sampler


def priority_sort(*, bits: Count = 8, answered: Count = 16) -> Task:
    """The `answered` most urgent of T - answered - 1 vectors of `bits`."""

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        shown, needed = length - answered - 1, 2 * answered + 1
        n = lasting(shown, answered, "priority_sort", needed, length)
        key_v, key_p = jax.random.split(key)
        v = draw_bits(key_v, batch, n, bits)
        p = jax.random.uniform(key_p, (batch, n), jnp.float32, -1, 1)
        best = jax.lax.top_k(p, answered)[1].astype(jnp.int32)
        later = ((0, 0), (0, length - n))
        mask = jnp.arange(length, dtype=jnp.int32)[None] > jnp.full((batch, 1), n, jnp.int32)
        delimiter = jnp.zeros((batch, length), jnp.float32).at[:, n].set(1)
        x = beside(jnp.pad(v, (*later, (0, 0))), jnp.pad(p, later), delimiter)
        y = jnp.pad(at(v, best), ((0, 0), (n + 1, 0), (0, 0)))
        return Batch(x, y, mask.astype(jnp.float32))

    spec = Spec(Features(bits + 2), Bernoullis(bits, per_step=True))
    return Task("priority_sort", spec, sample, lambda length: {"loss": bits * log(2)})
