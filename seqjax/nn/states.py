"""States of one example: those that each step finds, those that are accepted, gauges."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from seqjax.core.flow import Carry, Flow
from seqjax.core.monoid import select

State = Any


def gauged(state: Any) -> bool:
    """Whether equal states of its kind may be different numbers."""
    return hasattr(state, "canonical")


def entering(states: State, h: Carry, flow: Flow) -> State:
    """What each step [T] finds: the state after the one before, h.now at first, h.start at a
    reset."""

    def leaf(after, first, fresh):
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
