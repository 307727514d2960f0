"""Needle retrieval at a distance (arXiv:2606.06479): an element behind a mark, among others.

Every step shows one of `elements`, uniformly random; one step, in the first half, is the mark, and
the element right behind it is the needle.  The last step is the mark again, and its answer the
needle:

    input    r r | n r r r r r r |        target   n, on the last step only

Tokens: the mark 0, the elements 1 .. `elements`; classes: the elements, from 0.  With `distance`
the needle is that many steps before the end, so that length and distance can be told apart.
`induction_heads` is the same memory with the pair anywhere in the sequence.

Baseline: a guess among the elements.
Length generalisation: the needle further back; with `distance` at most as far as that.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Count, Range
from seqjax.tasks.task import Batch, Classes, Spec, Task, Tokens, sampler, uniform_baseline


def needle(*, elements: Count = 8, distance: Annotated[int, Range(1)] | None = None) -> Task:
    """The element behind the mark, for any T >= 3.

    elements: how many there are
    distance: steps from the needle to the end; None: it is anywhere in the first half
    """
    shortest = 3 if distance is None else distance + 2

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        if length < shortest:
            raise ValueError(
                f"needle {'' if distance is None else f'at a distance of {distance} '}"
                f"needs length >= {shortest}, got {length}"
            )
        key_noise, key_place, key_needle = jax.random.split(key, 3)
        x = jax.random.randint(key_noise, (batch, length), 1, elements + 1, jnp.int32)
        place = jax.random.randint(key_place, (batch,), 1, max(2, length // 2), jnp.int32)
        if distance is not None:
            place = jnp.full_like(place, length - 1 - distance)
        found = jax.random.randint(key_needle, (batch,), 1, elements + 1, jnp.int32)
        rows = jnp.arange(batch, dtype=jnp.int32)
        x = x.at[rows, place - 1].set(0).at[rows, place].set(found).at[:, -1].set(0)
        y = jnp.zeros_like(x).at[:, -1].set(found - 1)
        return Batch(x, y, jnp.zeros(x.shape, jnp.float32).at[:, -1].set(1))

    names = [str(i) for i in range(elements)]
    spec = Spec(Tokens(elements + 1), Classes(elements, per_step=True))
    return Task(
        "needle", spec, sample, lambda length: uniform_baseline(elements),
        tokens=["|", *names], classes=names,
    )  # fmt: skip
