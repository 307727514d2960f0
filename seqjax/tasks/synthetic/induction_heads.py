"""Induction heads (arXiv:2209.11895) as the sequence task of arXiv:2212.14052 and 2312.00752.

A sequence of uniformly random tokens holds the special token once, at a random place; it ends
with the special token again, and the answer is the token that followed it the first time.

    input    r r r S a r r r r S        target   a, on the last step only

arXiv:2312.00752 trains on 256 steps with a vocabulary of 16.  Here the special token is one more,
id 16, as in the generator published with arXiv:2212.14052.

With `every` the special token comes again and again, at random places, the same token after it each
time, and each of them but the first is a target (the repeated sequences by which arXiv:2209.11895
finds such heads are targets at every step, too):

    input    r S a r r S a r S      target   . . . . . a . . a

It is the same memory, with many targets in a sequence, at all distances: T / 8 pairs of the special
token and the one after it, and the special token at the end.

Baseline: a guess among the ordinary tokens, accuracy 1/16 and loss log 16.
Length generalisation: train on 256 steps, test on 2^6 to 2^20: one pair, ever further back.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Range
from seqjax.tasks.task import (
    Batch,
    Classes,
    Spec,
    Task,
    Tokens,
    draw_distinct,
    sampler,
    uniform_baseline,
)


def induction_heads(*, vocabulary: Annotated[int, Range(1)] = 16, every: bool = False) -> Task:
    """The token that followed the special token (id `vocabulary`), for any T >= 3.

    every: each special token but the first is a target
    """
    special = vocabulary

    @sampler
    def sample_every(key: jax.Array, batch: int, length: int) -> Batch:
        _check(length)
        key_tokens, key_answer, key_place = jax.random.split(key, 3)
        tokens = jax.random.randint(key_tokens, (batch, length), 0, vocabulary, jnp.int32)
        answer = jax.random.randint(key_answer, (batch, 1), 0, vocabulary, jnp.int32)
        # Places of pairs among what the sequence is with each pair as one step, before the last S.
        pairs = max(1, length // 8)
        free = jnp.zeros(length - 1 - pairs, jnp.float32)
        place = jnp.sort(draw_distinct(key_place, free, batch, pairs), axis=1)
        place = place + jnp.arange(pairs, dtype=jnp.int32)[None]
        place = jnp.concatenate([place, jnp.full((batch, 1), length - 1, jnp.int32)], axis=1)
        rows = jnp.arange(batch, dtype=jnp.int32)[:, None]
        x = tokens.at[rows, place].set(special).at[rows, place + 1].set(answer, mode="drop")
        due = jnp.zeros(x.shape, bool).at[rows, place[:, 1:]].set(True)
        return Batch(x, jnp.where(due, answer, 0), due.astype(jnp.float32))

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        _check(length)
        key_tokens, key_place = jax.random.split(key)
        tokens = jax.random.randint(key_tokens, (batch, length), 0, vocabulary, jnp.int32)
        place = jax.random.randint(key_place, (batch, 1), 0, length - 2, jnp.int32)
        t = jnp.arange(length, dtype=jnp.int32)[None]
        last = jnp.broadcast_to(t == length - 1, tokens.shape)
        answer = jnp.take_along_axis(tokens, place + 1, axis=1)
        x = jnp.where((t == place) | last, special, tokens)
        return Batch(x, jnp.where(last, answer, 0), last.astype(jnp.float32))

    spec = Spec(Tokens(vocabulary + 1), Classes(vocabulary, per_step=True))
    return Task(
        "induction_heads",
        spec,
        sample_every if every else sample,
        lambda length: uniform_baseline(vocabulary),
        tokens=[*map(str, range(vocabulary)), "S"],
    )


def _check(length: int) -> None:
    if length < 3:
        raise ValueError(f"induction_heads needs length >= 3 (S, answer, S), got {length}")
