"""A sequence written backwards: the least task of an encoder and a decoder (arXiv:1409.3215).

A source of n uniformly random tokens is read whole; then the target is written, after the token
that begins it.

    source   a b c .        target in   S c b .        target out   c b a .

n is uniform in [length / 2, length]; what is left of the `length` steps of both is padding.

Baseline: a guess among the tokens. Length generalisation: longer sources.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.answers import Pair, Paired
from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Classes, Spec, Task, Tokens, sampler, uniform_baseline


def reverse(*, vocabulary: Annotated[int, Range(1)] = 16) -> Task:
    """The source backwards; the token that begins it has the id `vocabulary`."""
    begin = vocabulary

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        key_tokens, key_length = jax.random.split(key)
        tokens = jax.random.randint(key_tokens, (batch, length), 0, vocabulary, jnp.int32)
        shortest = (length + 1) // 2
        n = jax.random.randint(key_length, (batch, 1), shortest, length + 1, jnp.int32)
        t = jnp.arange(length, dtype=jnp.int32)[None]
        there = t < n
        y = jnp.take_along_axis(tokens, jnp.maximum(n - 1 - t, 0), axis=1)
        before = jnp.concatenate([jnp.full((batch, 1), begin, jnp.int32), y[:, :-1]], axis=1)
        source, target, y = (jnp.where(there, one, 0) for one in (tokens, before, y))
        return Batch(Paired(source, target, there), y, there.astype(jnp.float32), present=there)

    tokens = Tokens(vocabulary + 1)
    spec = Spec(Pair(tokens, tokens, begin), Classes(vocabulary + 1, per_step=True))
    return Task("reverse", spec, sample, lambda length: uniform_baseline(vocabulary))
