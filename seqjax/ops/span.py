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

from seqjax.core.axis import Axis, Summary, combine
from seqjax.core.monoid import Monoid, dense, diagonal, select

Run = Callable[[Any, Any, Any], tuple[Any, Any]]  # (xs, state, start) -> outputs, state


@dataclass(frozen=True)
class Span:
    """element(run, xs, state, resets): of the steps from the last reset on, one of `monoid`.
    refuses(xs): why there is none for these; None if there is. reach(xs, state): how many pieces
    like this the state may know of; None: all."""

    element: Callable[[Run, Any, Any, Any], Any]
    monoid: Monoid
    refuses: Callable[[Any], str | None] = lambda xs: None
    reach: Callable[[Any, Any], int | None] = lambda xs, state: None

    def summary(self, run: Run, xs: Any, state: Any, resets: Any, start: Any) -> Summary:
        """What the piece does to a state like this one, whose numbers are not looked at."""
        start = jax.tree.map(jnp.zeros_like, state) if start is None else start
        cut = None if resets is None else jnp.any(resets)
        element = self.element(run, xs, state, resets)
        return Summary(element, cut, start, self.monoid, reach=self.reach(xs, state))

    def over(
        self, axis: Axis, run: Run, xs: Any, state: Any, resets: Any, start: Any, *, reverse: bool
    ) -> tuple[Any, Any]:
        """Outputs of this device's steps, and the state after those of all devices."""
        summary = self.summary(run, xs, state, resets, start)
        before, last = combine(summary, state, axis, reverse=reverse)
        return run(xs, before, summary.start)[0], last


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

    return Span(element, each)


def _combine_each(p: Any, q: Any) -> Any:
    a = jax.tree.map(jnp.multiply, q[0], p[0])
    return a, jax.tree.map(lambda a, b, c: a * b + c, q[0], p[1], q[1])


each = Monoid(
    _combine_each,
    lambda e: (jax.tree.map(jnp.ones_like, e[0]), jax.tree.map(jnp.zeros_like, e[1])),
    lambda e, h: jax.tree.map(lambda a, b, h: diagonal.act((a, b), h), *e, h),
)
"""`diagonal` for states that are trees: elements (a, b), each like the state."""


def matrix(drive: str, shared: Callable[[Any], str | None] = lambda xs: None) -> Span:
    """S [H, K, V] is multiplied by A [H, K, K] from the left; `drive` [T, H, V] is what writes.
    shared(xs): None, or why there is no one A for all V columns.

    A S is what further columns of S are after steps that write nothing to them: one run from
    [0, 1], with values [v, 0], ends in [b, A].
    """

    def element(run: Run, xs: Any, state: Any, resets: Any) -> Any:
        del resets
        H, K, V = state.shape
        v = getattr(xs, drive)
        nothing = jnp.zeros((*v.shape[:2], K), v.dtype)
        wide = xs._replace(**{drive: jnp.concatenate([v, nothing], 2)})
        one = jnp.broadcast_to(jnp.eye(K, dtype=state.dtype)[None], (H, K, K))
        first = jnp.concatenate([jnp.zeros_like(state), one], 2)
        last = run(wide, first, first)[1]
        return last[..., V:], last[..., :V]

    return Span(element, dense, shared)


def pushed(count: Callable[[Any, Any], Array]) -> Span:
    """The state is a window of the newest inputs, leaves [W, ...]; count(xs, resets) are new."""

    def element(run: Run, xs: Any, state: Any, resets: Any) -> Any:
        empty = jax.tree.map(jnp.zeros_like, state)
        return count(xs, resets), run(xs, empty, empty)[1]

    return Span(element, window, reach=filled_by)


def filled_by(xs: Any, window: Any) -> int | None:
    """How many pieces like this fill a window [W, ...]; unknown where steps are masked."""
    size, steps = (len(jax.tree.leaves(tree)[0]) for tree in (window, xs))
    return None if xs.mask is not None else max(1, -(-size // steps))


def push(n: Array, old: Array, new: Array) -> Array:
    """old [W, ...] moved left by n; in the freed places the end of new [W, ...]."""
    size = len(old)
    place = jnp.arange(size, dtype=jnp.int32)
    moved = jnp.take(old, jnp.minimum(place + n, size - 1), axis=0) if size else old
    return select(place + n < size, moved, new)


def _push_all(e: Any, old: Any) -> Any:
    return jax.tree.map(partial(push, e[0]), old, e[1])


window = Monoid(
    lambda p, q: (p[0] + q[0], _push_all(q, p[1])),
    lambda e: (jnp.zeros_like(e[0]), e[1]),
    _push_all,
)
"""`seqjax.core.monoid.shift` for windows of any length, none among them, and any number of arrays:
elements (n, x), n the inputs that are new."""


def taken(xs: Any, resets: Array | None) -> Array:
    """int32 []: how many steps from the last reset on are not masked, for xs with a mask."""
    steps = len(jax.tree.leaves(xs)[0])
    counts = since_reset(resets, steps)
    return jnp.sum(counts if xs.mask is None else counts & xs.mask, dtype=jnp.int32)
