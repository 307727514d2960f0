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

from seqjax.core.monoid import select


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
    else:  # the last event so far, odd where it is a loss: one scan, for compiling it costs most
        begun = jnp.where(
            resets.reshape(over_time), 2 * place, jnp.where(lost_before, -1, -2)[None]
        )
        reached = lax.cummax(jnp.where(lost, 2 * place + 1, begun)) % 2 == 1
    return reached, jnp.concatenate([lost_before[None], reached])[-1]


def mark(lost: Array, tree: Any) -> Any:
    """NaN where `lost` [...] is set, in all leaves [..., ...] but integers."""

    def leaf(x: Array) -> Array:
        inexact = jnp.issubdtype(x.dtype, jnp.inexact)
        return select(lost, jnp.full_like(x, jnp.nan), x) if inexact else x

    return jax.tree.map(leaf, tree)


def lost_in(inputs: dict[str, Array], names: Collection[str], keep: int) -> Array:
    """bool over the first `keep` axes: whether one of the arrays named is not finite there."""
    lost = jnp.zeros(next(iter(inputs.values())).shape[:keep], bool)
    for name in names:
        if jnp.issubdtype(inputs[name].dtype, jnp.inexact):
            lost |= ~finite(inputs[name], keep)
    return lost


def quarantined(
    evaluate: Callable[[Any, Any], Any],
    fill: Any,
    readers: Collection[str],
    keep: int,
    *,
    resets: Array | None,
    start: Any,
) -> Callable[[Any, Any], Any]:
    """evaluate(xs, state) -> (outputs, state), its NaNs shut in.

    readers: fields of xs that only look at the state; one of them is lost for its own step alone.
    keep: 2 where xs are [T, H, ...], states [H, ...], and heads do not look at each other, else 1.
    """

    def guarded(xs: Any, state: Any) -> tuple[Any, Any]:
        inputs = {name: x for name, x in xs._asdict().items() if x is not None}
        reading = [name for name in inputs if name in readers]
        writers = [name for name in inputs if name not in readers]
        lost, unread = lost_in(inputs, writers, keep), lost_in(inputs, reading, keep)
        fills = fill._asdict()

        def without(name: str, x: Array) -> Array:
            return select(unread if name in readers else lost, jnp.full_like(x, fills[name]), x)

        state_lost = jnp.zeros(lost.shape[1:], bool)
        for s in jax.tree.leaves(state):
            if jnp.issubdtype(s.dtype, jnp.inexact):
                state_lost |= ~finite(s, keep - 1)
        fresh = jax.tree.map(jnp.zeros_like, state) if start is None else start
        xs = xs._replace(**{name: without(name, x) for name, x in inputs.items()})
        y, end = evaluate(xs, select(state_lost, fresh, state))
        reached, at_end = reach(lost, state_lost, resets)
        return mark(reached | unread, y), mark(at_end, end)

    return guarded
