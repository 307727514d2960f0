"""a^n b^n and a^n b^n c^n: languages of counters (Gers & Schmidhuber 2001; arXiv:1805.04908).

A sequence is one word, n uniform in 1 .. T / k for k letters; what is left of the T steps is
padding. The answer on each step is which symbols may come next: a or b in the midst of the a, from
the first b on exactly one, and after the last letter the end.

    input    a   a   a   b   b   b
    target   ab  ab  ab  b   b   .        classes: ab, then each letter from b on, then the end

The papers have these sets as 0 and 1 for each symbol, and count the words without a mistake:
sequence_accuracy.  One counter is enough for two letters and two are for more; no finite automaton
does it, and neither does a state whose numbers are bounded and of finite precision
(arXiv:1805.04908).

Baseline: a predictor that knows the present symbol. Among the k - 1 letters that follow the a it
takes the last one for another: of n of them one is the last, 1 / mean(n) in all.
Length generalisation: longer words.
"""

from math import log
from string import ascii_lowercase
from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Classes, Metrics, Spec, Task, Tokens, sampler


def counting(*, letters: Annotated[int, Range(2, 26)] = 2) -> Task:
    """Which symbols may come next in a^n b^n .., for any T >= `letters`.

    letters: k, 2 of a^n b^n, 3 of a^n b^n c^n
    """

    def longest(length: int) -> int:
        if length < letters:
            raise ValueError(
                f"counting of {letters} letters needs length >= {letters}, got {length}"
            )
        return length // letters

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        n = jax.random.randint(key, (batch, 1), 1, longest(length) + 1, jnp.int32)
        t = jnp.arange(length, dtype=jnp.int32)[None]
        there = t < letters * n
        x = jnp.where(there, t // n, 0)
        last = (t + 1) % n == 0
        y = jnp.where(there & (x > 0), x + last.astype(jnp.int32), 0)
        return Batch(x, y, there.astype(jnp.float32), present=there)

    def baseline(length: int) -> Metrics:
        last = 2 / (longest(length) + 1)  # of the letters that follow the a
        entropy = -last * log(last) - (1 - last) * log(1 - last) if last < 1 else 0.0
        rest = (letters - 1) / letters
        return {"loss": rest * entropy, "accuracy": 1 - rest * min(last, 1 - last)}

    spec = Spec(Tokens(letters), Classes(letters + 1, per_step=True))
    names = list(ascii_lowercase[:letters])
    return Task("counting", spec, sample, baseline, tokens=names, classes=["ab", *names[1:], "end"])
