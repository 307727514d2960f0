"""What attention sees: the last `window` steps, through a cache, as a recurrence.

    y_t = attend(query_t, items_s for s in (t - window, t])

`items` is whatever a step leaves behind (keys, values, log decays ...). The state is a cache of
those of the last window - 1 steps: that makes a stream, split anywhere, the same function as the
whole. Nothing is seen across a reset, which empties the cache; a masked step leaves nothing and
does not move the window. Time and memory are O(T window): queries go in blocks of `window`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.flow import takes_flow

Attend = Callable[[Any, Any, Array, Array, Array], Any]


class Cache(NamedTuple):
    """The newest steps at the end; the first window - 1 - filled slots are empty, and zero."""

    items: Any  # leaves [window - 1, ...]
    filled: Any  # int32 []


def empty(items: Any) -> Cache:
    """A cache of nothing: items are zeros, [window - 1, ...] each."""
    return Cache(items, jnp.zeros((), jnp.int32))


@takes_flow
def look_back(
    attend: Attend,
    queries: Any,
    items: Any,
    cache: Cache,
    *,
    resets: Array | None = None,
    mask: Array | None = None,
) -> tuple[Any, Cache]:
    """Outputs [T, ...] and the cache after the last step, for one example.

    queries, items: pytrees of [T, ...]; items are kept in the dtypes of the cache's.
    attend(queries, items, i, j, seen): outputs of a block of queries at the places i [n] from items
        at the places j [m]; i - j is how many steps a query lies after an item. seen bool [n, m]:
        which items a query may look at (its own step among them); the others hold anything finite.
    """
    T, size = len(jax.tree.leaves(queries)[0]), len(jax.tree.leaves(cache.items)[0])
    W = size + 1
    segment = jnp.zeros(T, jnp.int32) if resets is None else jnp.cumsum(resets, dtype=jnp.int32)
    taken, place = T, None
    if mask is not None:  # the steps that are taken go to the front, and their outputs back
        order = jnp.argsort(~mask, stable=True)
        taken, place = jnp.sum(mask), jnp.maximum(jnp.cumsum(mask) - 1, 0)
        resets = jnp.zeros(T, bool) if resets is None else resets
        segment = jnp.cumsum(resets & mask, dtype=jnp.int32)[order]
        queries, items = jax.tree.map(lambda z: z[order], (queries, items))
    items = jax.tree.map(
        lambda old, new: jnp.concatenate([old, new.astype(old.dtype)]), cache.items, items
    )
    y = _blocks(attend, queries, items, cache.filled, segment, W)

    # the newest window - 1 of cache and steps, without those before the last reset
    last = segment[jnp.maximum(taken - 1, 0)] if T else 0
    fresh = jnp.sum((segment == last) & (jnp.arange(T) < taken), dtype=jnp.int32)
    filled = jnp.minimum(jnp.where(last == 0, cache.filled, 0) + fresh, size)
    keep = jnp.arange(size, dtype=jnp.int32) >= size - filled

    def newest(z: Array) -> Array:
        z = lax.dynamic_slice_in_dim(z, taken, size)
        return jnp.where(keep.reshape(-1, *(1,) * (z.ndim - 1)), z, 0)

    y = y if place is None else jax.tree.map(lambda z: z[place], y)
    return y, Cache(jax.tree.map(newest, items), filled)


def _blocks(attend: Attend, queries: Any, items: Any, filled: Array, segment: Array, W: int) -> Any:
    """Queries [T, ...] over items [W - 1 + T, ...], blocks of `W` queries at a time."""
    T = len(segment)
    block = max(1, min(W, T))
    count = max(1, -(-T // block))
    tail = (0, count * block - T)
    # the cache is part of the first segment, its empty slots and what fills up are of none
    slot = jnp.arange(W - 1, dtype=jnp.int32)
    slots = jnp.where(slot < W - 1 - filled, jnp.int32(-1), 0)
    of_item = jnp.pad(jnp.concatenate([slots, segment]), tail, constant_values=-2)
    of_query = jnp.pad(segment, tail, constant_values=-3)
    queries, items = jax.tree.map(
        lambda z: jnp.pad(z, (tail, *((0, 0),) * (z.ndim - 1))), (queries, items)
    )
    i, j = jnp.arange(block), jnp.arange(block + W - 1)  # places in a block of queries, items
    in_window = (i[:, None] <= j[None]) & (j[None] < i[:, None] + W)

    def one(start: Array) -> Any:
        def cut(tree: Any, length: int) -> Any:
            return jax.tree.map(lambda z: lax.dynamic_slice_in_dim(z, start, length), tree)

        of_q, of_k = cut(of_query, len(i)), cut(of_item, len(j))
        seen = in_window & (of_q[:, None] == of_k[None])
        # a query that only fills a block up looks at itself: a softmax over nothing is NaN
        seen |= i[:, None] + W - 1 == j[None]
        return attend(cut(queries, len(i)), cut(items, len(j)), i + W - 1, j, seen)

    y = lax.map(jax.checkpoint(one), block * jnp.arange(count))
    return jax.tree.map(lambda z: z.reshape(count * block, *z.shape[2:])[:T], y)
