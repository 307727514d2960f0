"""Associative recall of a neural Turing machine (arXiv:1410.5401, section 4.3): what came next.

An item is a few vectors of random bits, here three of six, after a delimiter.  After several items
one of them is shown again, between delimiters of another kind: the answer is the item after it.

    input    | item | item .. | item : item : zeros      K (vectors + 1) + 2 vectors + 2 steps,
    target                                 the next      bits + 2 channels; target bits

K is uniform from 2 to the most that the sequence has room for; padding, which is left out, follows.
The paper trains on K up to 6.  The row `associative_recall` is another task, of letters and digits.

Baseline: a guess of each bit, loss bits log 2 a step.
Length generalisation: more items; the paper queries for K up to 20.
"""

from math import log

import jax
import jax.numpy as jnp

from seqjax.answers import Bernoullis
from seqjax.core.ranges import Count
from seqjax.tasks.synthetic.bits import at, beside, draw_bits, lasting, where
from seqjax.tasks.task import Batch, Features, Spec, Task, sampler


def bit_recall(*, bits: Count = 6, vectors: Count = 3) -> Task:
    """Items of `vectors` of `bits`, two at least."""
    item, asking = vectors + 1, vectors + 2  # steps

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        beyond = asking + vectors
        items = (length - beyond) // item
        most = lasting(items, 2, "bit_recall", 2 * item + beyond, length)
        keys = jax.random.split(key, 3)
        v = draw_bits(keys[0], batch, most * vectors, bits)
        K = jax.random.randint(keys[1], (batch, 1), 2, most + 1, jnp.int32)
        q = jax.random.randint(keys[2], (batch, 1), 0, K - 1, jnp.int32)
        t = jnp.arange(length, dtype=jnp.int32)[None]
        s = t - K * item  # from the query on
        queried = (s > 0) & (s <= vectors)
        due = (s >= asking) & (s < beyond)
        opens, queries = (s < 0) & (t % item == 0), (s == 0) | (s == vectors + 1)
        stored = at(v, t // item * vectors + t % item - 1 + 0 * s)
        x = jnp.where(queried[..., None], at(v, q * vectors + s - 1), stored)
        x = where(queried | ((s < 0) & (t % item > 0)), x)
        y = where(due, at(v, (q + 1) * vectors + s - asking))
        mask = due.astype(jnp.float32)
        return Batch(beside(x, opens, queries), y, mask, present=s < beyond)

    spec = Spec(Features(bits + 2), Bernoullis(bits, per_step=True))
    return Task("bit_recall", spec, sample, lambda length: {"loss": bits * log(2)})
