"""Copying strings of any length (arXiv:2402.01032): what no fixed state can hold.

A string of n letters, a mark, and the string again, letter by letter, each seen before the next
is due; an end follows.  n is uniform from `shortest` to the longest that the sequence has room for.

    input    begin s1 .. sn copy s1 .. sn padding       T >= 2 n + 2
    target                  s1 s2 .. end                from the mark on

Tokens: the letters, then `copy`, `begin` and padding, which is left out; classes: letters and end.
The metric of the paper is `sequence_accuracy`: the share of strings without a wrong letter.  The
row `copy` is another task: ten symbols over a delay.

Baseline: any letter in the n steps where one is due, the end where it is due, which a predictor
that counts but forgets the letters knows: loss n log(letters) / (n + 1), accuracy
(n / letters + 1) / (n + 1), over the sum of all n.
Length generalisation: longer strings, shortest = (length - 2) / 2.
"""

from math import log
from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Classes, Metrics, Spec, Task, Tokens, sampler


def string_copy(
    *, letters: Annotated[int, Range(1)] = 26, shortest: Annotated[int, Range(1)] = 1
) -> Task:
    """Strings of `letters`, at least `shortest` of them, for any T >= 2 shortest + 2."""
    end = mark = letters  # the class and the token have the same number
    begin, nothing = letters + 1, letters + 2

    def longest(length: int) -> int:
        n = (length - 2) // 2
        if n < shortest:
            raise ValueError(
                f"string_copy of {shortest} letters needs length >= {2 * shortest + 2}, "
                f"got {length}"
            )
        return n

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        most = longest(length)
        key_s, key_n = jax.random.split(key)
        string = jax.random.randint(key_s, (batch, most), 0, letters, jnp.int32)
        n = jax.random.randint(key_n, (batch, 1), shortest, most + 1, jnp.int32)
        t = jnp.arange(length, dtype=jnp.int32)[None]

        def letter(place: jax.Array) -> jax.Array:
            """Letter number `place` [batch, length] of the strings, from 0."""
            return jnp.take_along_axis(string, jnp.clip(place, 0, most - 1), axis=1)

        x = jnp.where(t <= n, letter(t - 1), letter(t - n - 2))
        x = jnp.where(t == 0, begin, jnp.where(t == n + 1, mark, x))
        there, due = t <= 2 * n + 1, (n < t) & (t <= 2 * n + 1)
        y = jnp.where(t == 2 * n + 1, end, letter(t - n - 1))
        x, y = jnp.where(there, x, nothing), jnp.where(due, y, 0)
        return Batch(x, y, due.astype(jnp.float32), present=there)

    def baseline(length: int) -> Metrics:
        counts = range(shortest, longest(length) + 1)
        due = sum(n + 1 for n in counts)
        return {
            "loss": sum(n * log(letters) for n in counts) / due,
            "accuracy": sum(n / letters + 1 for n in counts) / due,
        }

    spec = Spec(Tokens(letters + 3), Classes(letters + 1, per_step=True))
    return Task("string_copy", spec, sample, baseline)
