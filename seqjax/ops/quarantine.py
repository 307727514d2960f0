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
        inputs = {name: x for name, x in xs._asdict().items() if x is not None}
        writers = [name for name in inputs if name not in readers]
        lost, unread = lost_in(inputs, writers), lost_in(inputs, readers)
        fills = fill._asdict()

        def without(name: str, x: Array) -> Array:
            gone = unread if name in readers else lost
            gone = gone.reshape(gone.shape + (1,) * (x.ndim - gone.ndim))
            return jnp.where(gone, jnp.asarray(fills[name], x.dtype), x)

        state_lost = jnp.zeros(lost.shape[1:], bool)
        for s in jax.tree.leaves(state):
            if jnp.issubdtype(s.dtype, jnp.inexact):
                state_lost |= ~finite(s, keep - 1)
        fresh = jax.tree.map(jnp.zeros_like, state) if reset_state is None else reset_state

        def begin(s: Array, f: Array) -> Array:
            flag = state_lost.reshape(state_lost.shape + (1,) * (s.ndim - state_lost.ndim))
            return jnp.where(flag, f, s)

        xs = xs._replace(**{name: without(name, x) for name, x in inputs.items()})
        y, end = evaluate(xs, jax.tree.map(begin, state, fresh))
        reached, at_end = reach(lost, state_lost, resets)
        return mark(reached | unread, y), mark(at_end, end)

    def lost_in(inputs: dict[str, Array], names: Collection[str]) -> Array:
        """[T] or [T, H]: whether one of them is not finite there."""
        any_of = next(iter(inputs.values()))
        lost = jnp.zeros(any_of.shape[:keep], bool)
        for name in names:
            if jnp.issubdtype(inputs[name].dtype, jnp.inexact):
                lost |= ~finite(inputs[name], keep)
        return lost

    return guarded
