"""Associative recall, the retrieval task of arXiv:1610.06258, section 4.1 (`c9k8j3f1??c` -> 9).

K pairs of a letter and a digit, two question marks, and one of the letters: the answer is its
digit.  The letters of a sequence are all different, the digits are drawn independently.

    input    k1 v1 k2 v2 ... kK vK ? ? k_q      2 K + 3 steps      one class per sequence: v_q

Tokens: the 26 letters 0 .. 25, the 10 digits 26 .. 35, the question mark 36; classes: the digits.

With `every` the pairs go on to the end, letters are drawn anew each time, a letter keeps its digit,
and each letter that was there before is a query (as in the text of arXiv:2312.04927, where recall
is measured on bigrams that are repeated):

    input    c 9 k 8 c 9 j 3 k 8 ..      target   . . . . 9 . . . 8 . ..      on the letters

It is the same memory, with many targets in a sequence, at all distances.

Baseline: a guess among the digits, accuracy 1/10 and loss log 10.
Length generalisation: more pairs to hold, K = (length - 3) / 2, up to one for each letter; with
`every` all letters are soon there, and pairs are held for longer.
"""

from string import ascii_lowercase
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


def associative_recall(
    *,
    keys: Annotated[int, Range(1)] = 26,
    values: Annotated[int, Range(1)] = 10,
    every: bool = False,
) -> Task:
    """The value of one key among K = (length - 3) / 2 <= `keys` pairs.

    every: each key that comes again is a query, for any T >= 3
    """
    question = keys + values

    @sampler
    def sample_every(key: jax.Array, batch: int, length: int) -> Batch:
        if length < 3:
            raise ValueError(f"associative_recall of every key needs length >= 3, got {length}")
        key_k, key_v = jax.random.split(key)
        pairs = (length + 1) // 2  # the digit of the last one is no step, if the length is odd
        k = jax.random.randint(key_k, (batch, pairs), 0, keys, jnp.int32)
        k = k.at[:, -1].set(k[:, 0])  # at least one comes again
        values_of = jax.random.randint(key_v, (batch, keys), 0, values, jnp.int32)
        v = jnp.take_along_axis(values_of, k, axis=1)
        equal = k[:, :, None] == k[:, None]
        again = jnp.any(jnp.tril(equal, -1), axis=2)
        x = _in_turn(k, v + keys)[:, :length]
        due = _in_turn(again, jnp.zeros_like(again))[:, :length]
        y = jnp.where(due, _in_turn(v, v)[:, :length], 0)
        return Batch(x, y, due.astype(jnp.float32))

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        pairs = (length - 3) // 2
        if length % 2 == 0 or not 1 <= pairs <= keys:
            raise ValueError(
                f"associative_recall has length 2 K + 3 with 1 <= K <= {keys} pairs: "
                f"an odd length from 5 to {2 * keys + 3}, got {length}"
            )
        key_k, key_v, key_q = jax.random.split(key, 3)
        k = draw_distinct(key_k, jnp.zeros(keys, jnp.float32), batch, pairs)
        v = jax.random.randint(key_v, (batch, pairs), 0, values, jnp.int32)
        q = jax.random.randint(key_q, (batch, 1), 0, pairs, jnp.int32)
        shown = _in_turn(k, v + keys)
        marks = jnp.full((batch, 2), question, jnp.int32)
        x = jnp.concatenate([shown, marks, jnp.take_along_axis(k, q, axis=1)], axis=1)
        return Batch(x, jnp.take_along_axis(v, q, axis=1)[:, 0], jnp.ones(batch, jnp.float32))

    names = [*ascii_lowercase] if keys <= 26 else [f"k{i}" for i in range(keys)]
    digits = [str(i) for i in range(values)]
    return Task(
        "associative_recall",
        Spec(Tokens(keys + values + 1), Classes(values, per_step=every)),
        sample_every if every else sample,
        lambda length: uniform_baseline(values),
        tokens=[*names[:keys], *digits, "?"],
        classes=digits,
    )


def _in_turn(a: jax.Array, b: jax.Array) -> jax.Array:
    """a1 b1 a2 b2 .. of [B, N] each."""
    return jnp.stack([a, b], axis=2).reshape(len(a), -1)
