"""States of one example: those that each step finds, those that are accepted, gauges."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from seqjax.core.axis import Summary, combine, step_before
from seqjax.core.flow import Carry, Flow
from seqjax.core.monoid import Monoid, select
from seqjax.ops.quarantine import finite, reach

State = Any


def gauged(state: Any) -> bool:
    """Whether equal states of its kind may be different numbers."""
    return hasattr(state, "canonical")


def entering(states: State, h: Carry, flow: Flow) -> State:
    """What each step [T] finds: the state after the one before, h.now at first, h.start at a
    reset."""

    def leaf(after, first, fresh):
        if flow.axis is not None:
            first = step_before(after, first, flow.axis)
        before = jnp.concatenate([first[None].astype(after.dtype), after])[:-1]
        if flow.resets is None:
            return before
        return select(flow.resets, _for_each(fresh, before), before)

    return jax.tree.map(leaf, states, h.now, h.start)


def _for_each(fresh, like):
    return jnp.broadcast_to(fresh.astype(like.dtype)[None], like.shape)


def like_state(expected, given, name: str):
    """`given` in the dtypes of `expected`, or one error if its structure or shapes differ."""
    same = jax.tree.structure(expected) == jax.tree.structure(given)
    shapes = [jnp.shape(s) for s in jax.tree.leaves(expected)]
    if not same or shapes != [jnp.shape(s) for s in jax.tree.leaves(given)]:
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (expected, given)]
        raise ValueError(f"{name}: the state has shapes {shapes[0]}, got {shapes[1]}")
    return jax.tree.map(lambda e, g: jnp.asarray(g).astype(e.dtype), expected, given)


def without_nans(x: jax.Array, h: Carry) -> tuple[jax.Array, Carry, jax.Array, jax.Array]:
    """x and h without what is not finite, and whether it was there: steps [T], state []."""
    lost = ~finite(x, 1)
    x = select(lost, jnp.zeros_like(x), x)
    lost_state = jnp.zeros((), bool)
    for s in jax.tree.leaves(h.now):
        lost_state |= jnp.any(jnp.isnan(s))
    now = jax.tree.map(lambda s, fresh: jnp.where(lost_state, fresh, s), h.now, h.start)
    return x, Carry(now, h.start), lost, lost_state


def reach_of(lost: jax.Array, state_lost: jax.Array, flow: Flow) -> tuple[jax.Array, jax.Array]:
    """`seqjax.ops.quarantine.reach`, on all devices that flow.axis splits time over."""
    if flow.axis is None:
        return reach(lost, state_lost, flow.begins)
    begins = jnp.zeros_like(lost) if flow.begins is None else flow.begins
    never = jnp.zeros((), bool)
    piece = Summary(reach(lost, never, begins)[1], jnp.any(begins), never, either)
    state_lost, at_end = combine(piece, state_lost, flow.axis)
    return reach(lost, state_lost, flow.begins)[0], at_end


either = Monoid(jnp.logical_or, jnp.zeros_like, jnp.logical_or)


def without_nans_of_pieces(x: jax.Array, flow: Flow) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [T, ...] without what is not finite, for a layer that sees ahead: then all steps of that
    piece, between two resets, are lost; which [T], and whether the last piece is."""
    bad, never = ~finite(x, 1), jnp.zeros((), bool)
    after, at_end = reach(bad, never, flow.begins)
    before, _ = reach(bad[::-1], never, flow.backwards().begins)
    return select(~bad, x, jnp.zeros_like(x)), after | before[::-1], at_end


def zero_if_infinite(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.isinf(x), jnp.zeros_like(x), x)
