"""What a NaN or an infinity may reach: the steps from its own to the next reset, and nothing else.

In a product over time a weight of zero does not keep a NaN out (0 * NaN is NaN), neither in value
nor in gradient, where also a loop multiplies cotangents of zero with it. So a step that holds one
is not computed with at all: it is replaced by a step that changes nothing, and NaN is selected
into what it reaches. The past, and what a reset begins, keep their values and their derivatives.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def finite(x: Array, keep: int) -> Array:
    """bool: whether all numbers are finite, for each place of the first `keep` axes."""
    return jnp.all(jnp.isfinite(x), axis=tuple(range(keep, x.ndim)))


def reach(lost: Array, lost_before: Array, resets: Array | None) -> tuple[Array, Array]:
    """Which steps [T, ...] see a lost one, or a lost state [...], and whether the end does.

    lost: bool [T, ...], the step itself among those that see it; resets bool [T], before a step.
    """
    over_time = (-1,) + (1,) * (lost.ndim - 1)
    place = jnp.arange(len(lost), dtype=jnp.int32).reshape(over_time)
    if resets is None:
        first = jnp.min(jnp.where(lost, place, len(lost)), axis=0, initial=len(lost))
        reached = (place >= first[None]) | lost_before[None]
    else:
        last_lost = lax.cummax(jnp.where(lost, place, -1))
        last_reset = lax.cummax(jnp.where(resets.reshape(over_time), place, -1))
        before = lost_before[None] & (last_reset < 0)
        reached = jnp.where(last_lost < 0, before, last_lost >= last_reset)
    return reached, jnp.concatenate([lost_before[None], reached])[-1]


def mark(lost: Array, tree: Any) -> Any:
    """NaN where `lost` [...] is set, in all leaves [..., ...] but integers."""

    def leaf(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        where = lost.reshape(lost.shape + (1,) * (x.ndim - lost.ndim))
        return jnp.where(where, jnp.asarray(jnp.nan, x.dtype), x)

    return jax.tree.map(leaf, tree)


def quarantined(
    evaluate: Callable[[Any, Any], Any],
    fill: Any,
    readers: Collection[str],
    keep: int,
    *,
    resets: Array | None,
    reset_state: Any,
) -> Callable[[Any, Any], Any]:
    """evaluate(xs, state) -> (outputs, state), its NaNs shut in.

    readers: fields of xs that only look at the state; one of them is lost for its own step alone.
    keep: 2 where xs are [T, H, ...], states [H, ...], and heads do not look at each other, else 1.
    """

    def guarded(xs: Any, state: Any) -> tuple[Any, Any]:
        good = {True: None, False: None}  # of what reads, of what writes
        for name, x in xs._asdict().items():
            if x is not None and jnp.issubdtype(x.dtype, jnp.inexact):
                now, before = finite(x, keep), good[name in readers]
                good[name in readers] = now if before is None else before & now
        assert good[False] is not None

        def without(name: str, x: Any, fill: Any) -> Any:
            if x is None:
                return None
            well = good[name in readers]
            well = well.reshape(well.shape + (1,) * (x.ndim - well.ndim))
            return jnp.where(well, x, jnp.asarray(fill, x.dtype))

        fills = fill._asdict()
        xs = type(xs)(**{n: without(n, x, fills[n]) for n, x in xs._asdict().items()})
        bad_state = jnp.zeros((), bool)
        for s in jax.tree.leaves(state):
            if jnp.issubdtype(s.dtype, jnp.inexact):
                bad_state |= ~finite(s, keep - 1)
        fresh = jax.tree.map(jnp.zeros_like, state) if reset_state is None else reset_state

        def begin(s: Array, f: Array) -> Array:
            flag = bad_state.reshape(bad_state.shape + (1,) * (s.ndim - bad_state.ndim))
            return jnp.where(flag, f, s)

        y, end = evaluate(xs, jax.tree.map(begin, state, fresh))
        lost = ~good[False]
        reached, at_end = reach(lost, jnp.broadcast_to(bad_state, lost.shape[1:]), resets)
        if good[True] is not None:
            reached |= ~good[True]
        return mark(reached, y), mark(at_end, end)

    return guarded
