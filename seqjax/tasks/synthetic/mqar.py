"""Multi-query associative recall, MQAR (arXiv:2312.04927), as its authors generate it.

N different keys with N different values come first, then every key is queried once, at gaps that
follow a power law; on the step of a query the answer is the value of its key.

    input    k1 v1 ... kN vN | k_i . . . k_j . ...      2 N steps, then queries on even steps
    target   no target       | v_i       v_j

Keys are drawn without replacement from 1 .. V/2 - 1, values from V/2 .. V - 1.  The r-th of the
(T - 2 N) / 2 places for a query has probability proportional to a r^(a - 1), drawn without
replacement: a = 0.01 as published puts most of them soon after the pairs, a = 1 is uniform.  The
steps between queries hold random tokens of the whole vocabulary (or 0).  Published sizes: V = 8192,
T = 64 .. 512 with N = 4 .. 64.

Baseline: any one of the values seen, for every query: accuracy 1/N; a guess among them: loss log N.
Length generalisation: longer gaps (T), more pairs to hold at once (N = `pairs`).
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


def mqar(
    *,
    pairs: Annotated[int, Range(1)] = 8,
    vocabulary: Annotated[int, Range(4)] = 8192,
    power: Annotated[float, Range(above=0)] = 0.01,
    random_filling: bool = True,
) -> Task:
    """Recall `pairs` values by their keys; `power` is a, `random_filling` is off for zeros."""
    half = vocabulary // 2
    if pairs > half - 1:
        raise ValueError(
            f"mqar draws {pairs} different keys from half the vocabulary: "
            f"vocabulary >= {2 * pairs + 2}, got {vocabulary}"
        )

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        if length % 2 or length < 4 * pairs:
            raise ValueError(
                f"mqar with {pairs} pairs needs an even length >= {4 * pairs}, got {length}"
            )
        key_k, key_v, key_gap, key_fill = jax.random.split(key, 4)
        k = 1 + draw_distinct(key_k, jnp.zeros(half - 1, jnp.float32), batch, pairs)
        v = half + draw_distinct(key_v, jnp.zeros(vocabulary - half, jnp.float32), batch, pairs)
        r = jnp.arange(1, length // 2 - pairs + 1, dtype=jnp.float32)
        gap = draw_distinct(key_gap, (power - 1) * jnp.log(r), batch, pairs)

        rows, query = jnp.arange(batch, dtype=jnp.int32)[:, None], 2 * pairs + 2 * gap
        filling = jax.random.randint(key_fill, (batch, length), 0, vocabulary, jnp.int32)
        if not random_filling:
            filling = jnp.zeros_like(filling)
        shown = jnp.stack([k, v], axis=-1).reshape(batch, 2 * pairs)
        x = filling.at[:, : 2 * pairs].set(shown).at[rows, query].set(k)
        y = jnp.zeros_like(x).at[rows, query].set(v)
        mask = jnp.zeros(x.shape, jnp.float32).at[rows, query].set(1.0)
        return Batch(x, y, mask)

    spec = Spec(Tokens(vocabulary), Classes(vocabulary, per_step=True))
    return Task("mqar", spec, sample, lambda length: uniform_baseline(pairs))
