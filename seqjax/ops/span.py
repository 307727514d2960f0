"""What a piece of an op's steps does to the state that enters it: see `seqjax.core.axis`.

A transition that is affine in the state, S' = A S + b, is read off the op itself: b is where the
piece ends from zero, A where it ends, without its drive, from one. After a reset inside the piece
both are those of the steps that follow it, and what they act on is the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from seqjax.core import axis as pieces
from seqjax.core.monoid import dense, diagonal, select

Run = Callable[[Any, Any, Any], tuple[Any, Any]]  # (xs, state, start) -> outputs, state


@dataclass(frozen=True)
class Span:
    """element(run, xs, state, resets): of the steps from the last reset on; act(element, state)."""

    element: Callable[[Run, Any, Any, Any], Any]
    act: Callable[[Any, Any], Any]

    def over(
        self, axis: str, run: Run, xs: Any, state: Any, resets: Any, start: Any, *, reverse: bool
    ) -> tuple[Any, Any]:
        """Outputs of this device's steps, and the state after those of all devices."""
        start = jax.tree.map(jnp.zeros_like, state) if start is None else start
        cut = jnp.zeros((), bool) if resets is None else jnp.any(resets)

        def act(piece: Any, state: Any) -> Any:
            cut, element = piece
            return self.act(element, select(cut, start, state))

        piece = cut, self.element(run, xs, state, resets)
        before, last = pieces.entering(act, piece, state, axis, reverse=reverse)
        return run(xs, before, start)[0], last


def since_reset(resets: Array | None, steps: int) -> Array:
    """bool [T]: the steps from the last reset on; all of them if there is none."""
    if resets is None:
        return jnp.ones(steps, bool)
    return jnp.cumsum(resets, dtype=jnp.int32) == jnp.sum(resets, dtype=jnp.int32)


def elementwise(*drive: str) -> Span:
    """Each number of the state has a multiplier of its own; `drive` are the xs that write."""

    def element(run: Run, xs: Any, state: Any, resets: Any) -> Any:
        del resets
        zeros, ones = (jax.tree.map(f, state) for f in (jnp.zeros_like, jnp.ones_like))
        silent = xs._replace(**{name: jnp.zeros_like(getattr(xs, name)) for name in drive})
        return run(silent, ones, ones)[1], run(xs, zeros, zeros)[1]

    def act(element: Any, state: Any) -> Any:
        return jax.tree.map(lambda a, b, h: diagonal.act((a, b), h), *element, state)

    return Span(element, act)


def matrix(drive: str, shared: Callable[[Any], str | None] = lambda xs: None) -> Span:
    """S [H, K, V] is multiplied by A [H, K, K] from the left; `drive` [T, H, V] is what writes.
    shared(xs): None, or why there is no one A for all V columns."""

    def element(run: Run, xs: Any, state: Any, resets: Any) -> Any:
        del resets
        if (why := shared(xs)) is not None:
            raise ValueError(f"time cannot be split over a mesh axis: {why}")
        H, K, _ = state.shape
        v = getattr(xs, drive)
        silent = xs._replace(**{drive: jnp.zeros((*v.shape[:2], K), v.dtype)})
        one = jnp.broadcast_to(jnp.eye(K, dtype=state.dtype)[None], (H, K, K))
        return run(silent, one, one)[1], run(xs, jnp.zeros_like(state), jnp.zeros_like(state))[1]

    return Span(element, dense.act)


def pushed(count: Callable[[Any, Any], Array]) -> Span:
    """The state is a window of the newest inputs, leaves [W, ...]; count(xs, resets) are new."""

    def element(run: Run, xs: Any, state: Any, resets: Any) -> Any:
        empty = jax.tree.map(jnp.zeros_like, state)
        return count(xs, resets), run(xs, empty, empty)[1]

    return Span(
        element, lambda element, state: jax.tree.map(partial(push, element[0]), state, element[1])
    )


def push(n: Array, old: Array, new: Array) -> Array:
    """old [W, ...] moved left by n; in the freed places the end of new [W, ...]."""
    size = len(old)
    place = jnp.arange(size, dtype=jnp.int32)
    moved = jnp.take(old, jnp.minimum(place + n, size - 1), axis=0) if size else old
    return select(place + n < size, moved, new)


def taken(xs: Any, resets: Array | None) -> Array:
    """int32 []: how many steps from the last reset on are not masked, for xs with a mask."""
    steps = len(jax.tree.leaves(xs)[0])
    counts = since_reset(resets, steps)
    return jnp.sum(counts if xs.mask is None else counts & xs.mask, dtype=jnp.int32)
