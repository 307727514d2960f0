"""Selective copying (arXiv:2312.00752, section 4.1.1; the denoise task of arXiv:1706.02761).

The M data tokens lie at random places among noise, so a fixed delay does not find them: the
model must decide by content what to keep.  The alphabet has A = 16 tokens: noise 0, the data
1 .. 14, and the marker 15 after which the answer is due.

    input    L tokens: M data at random places, in order, noise elsewhere | M markers
    target   no target                                                    | the M data, in order

The published sizes are M = 16, A = 16 and 4096 steps before the markers.  Only the M answers are
weighed; arXiv:1706.02761 averages over the blanks before them too.

Baseline: a guess among the data tokens has accuracy 1 / (A - 2) and loss log(A - 2).
Length generalisation: the same M data, sparser, in L = length - M steps.
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

NOISE = 0


def selective_copy(
    *, symbols: Annotated[int, Range(1)] = 14, memorised: Annotated[int, Range(1)] = 16
) -> Task:
    """Recall, in order, `memorised` tokens out of `symbols` (A = symbols + 2) hidden in noise."""
    marker = symbols + 1

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        steps = length - memorised
        if steps < memorised:
            raise ValueError(
                f"selective_copy of {memorised} tokens needs length >= {2 * memorised}, "
                f"got {length}"
            )
        key_data, key_place = jax.random.split(key)
        data = jax.random.randint(key_data, (batch, memorised), 1, marker, jnp.int32)
        places = draw_distinct(key_place, jnp.zeros(steps, jnp.float32), batch, memorised)
        rows = jnp.arange(batch, dtype=jnp.int32)[:, None]
        shown = jnp.full((batch, steps), NOISE, jnp.int32)
        shown = shown.at[rows, jnp.sort(places, axis=1)].set(data)
        x = jnp.concatenate([shown, jnp.full_like(data, marker)], axis=1)
        y = jnp.concatenate([jnp.full_like(shown, NOISE), data], axis=1)
        mask = jnp.arange(length, dtype=jnp.int32) >= steps
        return Batch(x, y, jnp.broadcast_to(mask.astype(jnp.float32)[None], x.shape))

    spec = Spec(Tokens(symbols + 2), Classes(symbols + 1, per_step=True))
    return Task("selective_copy", spec, sample, lambda length: uniform_baseline(symbols))
