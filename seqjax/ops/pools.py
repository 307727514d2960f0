"""Attention to pools: so many steps in a row, from the start of a sequence, the best of which a
query sees.

`look_back` gives queries [n], at places t of their sequences, items [m], at places s. A pool is
`size` items at places a size .. (a + 1) size - 1; the last of them stands for it.
"""

import jax.numpy as jnp
from jax import Array, lax


def members(count: int, size: int) -> Array:
    """int32 [count, size]: the items of the pool that ends at each item, oldest first; before the
    first item that one."""
    back = jnp.arange(size - 1, -1, -1, dtype=jnp.int32)
    return jnp.maximum(jnp.arange(count, dtype=jnp.int32)[:, None] - back[None], 0)


def choose(score: Array, s: Array, t: Array, seen: Array, *, size: int, best: int) -> Array:
    """bool [n, m]: the items of `seen` that each query looks at: those of the `best` pools, of all
    that are over and seen whole, and those of the pool that is not over.

    score [n, m]: of the pool that ends at each item, to each query; elsewhere anything. Of equal
    scores the first ones are taken. A choice has no gradient.
    """
    n, m = seen.shape
    item = jnp.arange(m, dtype=jnp.int32)
    first, end = item - (size - 1), item + size - 1 - s % size
    whole = ((s % size == size - 1) & (first >= 0))[None] & seen & seen[:, jnp.maximum(first, 0)]
    score = jnp.where(whole, lax.stop_gradient(score), -jnp.inf)
    top = lax.top_k(score, min(best, m))[1]
    chosen = whole & jnp.zeros((n, m), bool).at[jnp.arange(n)[:, None], top].set(True)
    kept = (end < m)[None] & jnp.take(chosen, jnp.minimum(end, m - 1), axis=1)
    return seen & (kept | (s[None] >= ((t + 1) // size * size)[:, None]))
