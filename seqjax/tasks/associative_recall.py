"""Associative recall, the retrieval task of arXiv:1610.06258, section 4.1 (`c9k8j3f1??c` -> 9).

K pairs of a letter and a digit, two question marks, and one of the letters: the answer is its
digit.  The letters of a sequence are all different, the digits are drawn independently.

    input    k1 v1 k2 v2 ... kK vK ? ? k_q      2 K + 3 steps      one class per sequence: v_q

Tokens: the 26 letters 0 .. 25, the 10 digits 26 .. 35, the question mark 36; classes: the digits.

Baseline: a guess among the digits, accuracy 1/10 and loss log 10.
Length generalisation: more pairs to hold, K = (length - 3) / 2, up to one for each letter.
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


def associative_recall(
    *, keys: Annotated[int, Range(1)] = 26, values: Annotated[int, Range(1)] = 10
) -> Task:
    """The value of one key among K = (length - 3) / 2 <= `keys` pairs."""
    question = keys + values

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
        shown = jnp.stack([k, v + keys], axis=-1).reshape(batch, 2 * pairs)
        marks = jnp.full((batch, 2), question, jnp.int32)
        x = jnp.concatenate([shown, marks, jnp.take_along_axis(k, q, axis=1)], axis=1)
        return Batch(x, jnp.take_along_axis(v, q, axis=1)[:, 0], jnp.ones(batch, jnp.float32))

    spec = Spec(Tokens(keys + values + 1), Classes(values, per_step=False))
    return Task("associative_recall", spec, sample, lambda length: uniform_baseline(values))
