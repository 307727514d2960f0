"""A sequence written backwards, by an encoder and a decoder (arXiv:1409.3215) or in one sequence.

A source of n uniformly random tokens is read whole; then the target is written, after the token
that begins it.

    source   a b c .        target in   S c b .        target out   c b a .

n is uniform in [length / 2, length]; what is left of the `length` steps of both is padding.  With
`paired=False` it is the task of arXiv:2207.06881, whose one model reads and writes, and n is
uniform in [length / 4, length / 2]:

    input    a b c S c b . .        target   . . . c b a . .

With `reversed_source` the source comes from its last token to its first, and what is written is
what was read, in its order. So the first token to be written is read first, and not last: the order
that an encoder and decoder without attention find hard (1409.3215, sec. 3.3).

Baseline: a guess among the tokens. Length generalisation: longer sources.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.answers import Pair, Paired
from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Classes, Spec, Task, Tokens, sampler, uniform_baseline


def reverse(
    *,
    vocabulary: Annotated[int, Range(1)] = 16,
    paired: bool = True,
    reversed_source: bool = False,
) -> Task:
    """The source backwards; the token that begins it has the id `vocabulary`.

    paired: source and target are two sequences, else one.
    reversed_source: the source is read from its last token to its first.
    """
    begin = vocabulary

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        most = length if paired else length // 2
        if not most:
            raise ValueError(f"reverse in one sequence needs length >= 2, got {length}")
        key_tokens, key_length = jax.random.split(key)
        tokens = jax.random.randint(key_tokens, (batch, most), 0, vocabulary, jnp.int32)
        n = jax.random.randint(key_length, (batch, 1), (most + 1) // 2, most + 1, jnp.int32)
        t = jnp.arange(length, dtype=jnp.int32)[None]
        i = t if paired else t - n  # the place in the target

        def token(place: jax.Array) -> jax.Array:
            """Token number `place` [batch, length] of the source, from 0."""
            return jnp.take_along_axis(tokens, jnp.clip(place, 0, most - 1), axis=1)

        read = token(n - 1 - t) if reversed_source else token(t)
        source, before, y = read, jnp.where(i == 0, begin, token(n - i)), token(n - 1 - i)
        there, due = i < n, (0 <= i) & (i < n)
        one = jnp.where(i < 0, source, before)
        source, before, one = (jnp.where(there, x, 0) for x in (source, before, one))
        x = Paired(source, before, there) if paired else one
        return Batch(x, jnp.where(due, y, 0), due.astype(jnp.float32), present=there)

    tokens = Tokens(vocabulary + 1)
    spec = (
        Spec(Pair(tokens, tokens, begin), Classes(vocabulary + 1, per_step=True)) if paired
        else Spec(tokens, Classes(vocabulary, per_step=True))
    )  # fmt: skip
    return Task("reverse", spec, sample, lambda length: uniform_baseline(vocabulary))
