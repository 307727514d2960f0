"""Heads that share: fewer of q and k than of v, or fewer of k and v than of q.

There are as many states as heads of v, H. What writes with fewer heads (k, and what belongs to it)
serves H / G heads of v in a row each: the groups of Mamba-2, the key heads of Gated DeltaNet. q may
have fewer heads in the same way, or a multiple n H of them: then each state, written once, is read
by n heads of q in a row, and there are n H outputs (grouped queries, 2305.13245).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def share_heads(
    op: str, name: str, x: Array, heads: int, *, reads: bool = False, axis: int = -2
) -> Array:
    """x [..., G, K] with each head H / G times in a row; as it is if it `reads` with n H heads."""
    have = x.shape[axis]
    if reads and heads and have % heads == 0:
        return x
    if not have or heads % have:
        more = ", or a multiple of them" if reads else ""
        raise ValueError(
            f"{op}: {name} has {have} heads and v {heads}; expected a divisor of those of v{more}"
        )
    return jnp.repeat(x, heads // have, axis=axis)


def read_in_groups(evaluate: Callable, xs: Any, state: Any, readers: Sequence[str]) -> Any:
    """evaluate(xs, state) for xs [T, H, ...], of which `readers` may have n H heads, one example.

    What does not depend on the readers, the states foremost, is computed once for all n.
    """
    heads = jax.tree.leaves(state)[0].shape[-3]
    reading = {name: getattr(xs, name) for name in readers}
    n = next(iter(reading.values())).shape[1] // heads if heads else 1
    if n == 1:
        return evaluate(xs, state)

    def one(reading: Any) -> Any:
        return evaluate(xs._replace(**reading), state)

    split = {k: x.reshape(len(x), heads, n, *x.shape[2:]) for k, x in reading.items()}
    y, states = jax.vmap(one, in_axes=2, out_axes=(2, 0))(split)
    y = y.reshape(len(y), heads * n, *y.shape[3:])
    return y, jax.tree.map(lambda s: s[0], states)
