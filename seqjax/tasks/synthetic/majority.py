"""Majority (arXiv:2009.11264): whether there were more ones than zeros so far.

Every step shows a fair bit, and asks for 1 where the ones among the bits so far, this one
included, outnumber the zeros, and for 0 where they do not.

    x int32 [B, T] in {0, 1}      y int32 [B, T]: 2 (x_1 + .. + x_t) > t

Counting is enough, so a linear recurrence with an eigenvalue 1 can; a finite automaton cannot.

Baseline: a predictor that knows t and no bit: p_t = P(y_t = 1) = (1 - P(tie)) / 2, which is 1/2 for
odd t; loss the mean entropy of p_t, accuracy the mean of 1 - p_t.
Length generalisation: the same rule on every step; the differences grow as sqrt(t).
"""

from math import comb, log

import jax
import jax.numpy as jnp

from seqjax.tasks.task import Batch, Classes, Metrics, Spec, Task, Tokens, sampler


def majority() -> Task:
    """Whether the ones of a prefix outnumber its zeros, for any T."""

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        x = jax.random.bernoulli(key, 0.5, (batch, length)).astype(jnp.int32)
        y = (jnp.cumsum(2 * x - 1, axis=1) > 0).astype(jnp.int32)
        return Batch(x, y, jnp.ones((batch, length), jnp.float32))

    def baseline(length: int) -> Metrics:
        ties = [0.0 if t % 2 else comb(t, t // 2) / 2**t for t in range(1, length + 1)]
        ps = [(1 - tie) / 2 for tie in ties]
        entropy = [-p * log(p) - (1 - p) * log(1 - p) if p else 0.0 for p in ps]
        return {"loss": sum(entropy) / length, "accuracy": sum(1 - p for p in ps) / length}

    return Task("majority", Spec(Tokens(2), Classes(2, per_step=True)), sample, baseline)
