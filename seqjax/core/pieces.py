"""Packed rows with a state for each piece: N starts in, N ends out.

A row of T steps holds N pieces one after the other, cu_seqlens [N + 1] (`seqjax.core.flags`). With
resets, one state enters the row and one leaves it. Here piece n begins with the state n of N, and
its last state is state n of those returned,

    y, ends = packed(call, xs, states, cu_seqlens)            states, ends: leaves [N, ...]

for anything that streams: a layer, a model, an op. The row is cut into *stretches* of `size` steps,
such that each piece begins with one of its own, and the last one of a piece is filled up with steps
that are masked. One scan over the stretches calls `call`, with the state that left the one before,
or with that of a new piece. So two laws of a layer are all that is needed, "a split stream is the
whole" and "a masked step is the identity", and the result is that of N calls of one piece each. It
takes at most T + N (size - 1) steps, and the backward pass keeps one state per stretch.

    y, states = boundaries(call, xs, state, every=C)          leaves [ceil(T / C), ...]

are the states on the way of one piece, after every C steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.flags import check_cu_seqlens
from seqjax.core.mesh import loop

State = Any


class Stretch(NamedTuple):
    """Steps `begin` to `end` of the row, of one piece."""

    begin: Array
    end: Array
    piece: Array
    first: Array  # of its piece


def packed(
    call: Callable[[Any, State, Array], tuple[Any, State]],
    xs: Any,
    states: State,
    cu_seqlens: Array,
    *,
    size: int | None = None,
) -> tuple[Any, State]:
    """Outputs [T, ...] and the states [N, ...] that the pieces end with.

    call(x, h, mask) -> (y, h): x with leaves [C, ...], mask bool [C], y with leaves [C, ...]; the
        states it returns are kept in the dtypes of `states`.
    xs: a pytree of [T, ...]. states: a pytree of [N, ...]; a piece without steps ends with its own.
    cu_seqlens: integers [N + 1] that never fall, possibly traced; what lies outside of them is of
        no piece, and its outputs are zero.
    size: C, the steps of one call; None: about those of a piece, from 16 to 256.
    Raises TypeError or ValueError for other cu_seqlens, and for states that are not N.

    >>> call = lambda x, h, mask: seqjax.linear_scan(jnp.ones_like(x), x, h, mask=mask)
    >>> cu_seqlens = jnp.array([0, 2, 5])
    >>> y, ends = packed(call, jnp.ones((5, 1)), jnp.zeros((2, 1)), cu_seqlens)
    >>> ends[:, 0].tolist()
    [2.0, 3.0]
    """
    T = len(jax.tree.leaves(xs)[0])
    N = _check(T, states, cu_seqlens, size)
    C = size or max(1, min(T, max(16, min(256, T // N))))
    cu = jnp.asarray(cu_seqlens).astype(jnp.int32)
    count = -(-(cu[1:] - cu[:-1]) // C)  # stretches of each piece
    last = jnp.cumsum(count, dtype=jnp.int32)
    place = jnp.arange(C, dtype=jnp.int32)
    n = jnp.arange((T + min(N, T) * (C - 1)) // C, dtype=jnp.int32)
    piece = jnp.minimum(jnp.searchsorted(last, n, side="right").astype(jnp.int32), N - 1)
    first = last[piece] - count[piece]
    begin = jnp.where(n < last[-1], cu[piece] + (n - first) * C, T)
    stretches = Stretch(begin, jnp.minimum(begin + C, cu[piece + 1]), piece, n == first)

    padded = jax.tree.map(partial(_longer, steps=C), xs)
    if not T:
        y = jax.eval_shape(lambda: call(padded, _at(states, 0), place < 0))[0]
        return jax.tree.map(lambda y: jnp.zeros((0, *y.shape[1:]), y.dtype), y), states

    def body(h: State, now: tuple[Stretch, State]) -> tuple[State, Any]:
        stretch, own = now
        h = jax.tree.map(lambda a, b: jnp.where(stretch.first, a, b), own, h)
        x = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, stretch.begin, C), padded)
        y, new = call(x, h, stretch.begin + place < stretch.end)
        new = jax.tree.map(lambda a, b: a.astype(b.dtype), new, h)
        return new, (y, new)

    own = _at(states, piece)
    _, (ys, after) = loop(jax.checkpoint(body, prevent_cse=False), _at(own, 0), (stretches, own))

    step = jnp.arange(T, dtype=jnp.int32)
    of = jnp.clip(jnp.searchsorted(cu, step, side="right").astype(jnp.int32) - 1, 0, N - 1)
    inside = (cu[0] <= step) & (step < cu[-1])
    offset = jnp.where(inside, step - cu[of], 0)
    at = jnp.where(inside, (last - count)[of] + offset // C, 0)

    def joined(y: Array) -> Array:
        return jnp.where(_like(inside, y[0]), y[at, offset % C], 0)

    ends = jax.tree.map(
        lambda s, end: jnp.where(_like(count > 0, s), end, s), states, _at(after, last - 1)
    )
    return jax.tree.map(joined, ys), ends


def boundaries(
    call: Callable[[Any, State, Array], tuple[Any, State]], xs: Any, state: State, *, every: int
) -> tuple[Any, State]:
    """Outputs [T, ...] and the states after every so many steps and the last, leaves
    [ceil(T / every), ...].

    call, xs: as for `packed`; state: the one before the first step. every=1: all states.
    Raises ValueError for `every` below 1.

    >>> call = lambda x, h, mask: seqjax.linear_scan(jnp.ones_like(x), x, h, mask=mask)
    >>> y, states = boundaries(call, jnp.ones((5, 1)), jnp.zeros(1), every=2)
    >>> states[:, 0].tolist()
    [2.0, 4.0, 5.0]
    """
    if every < 1:
        raise ValueError(f"every must be at least 1 step, got {every}")
    T, place = len(jax.tree.leaves(xs)[0]), jnp.arange(every, dtype=jnp.int32)
    count = -(-T // every)

    def cut(x: Array) -> Array:
        return _longer(x, count * every - T).reshape(count, every, *x.shape[1:])

    def body(h: State, now: tuple[Array, Any]) -> tuple[State, Any]:
        begin, x = now
        y, new = call(x, h, begin + place < T)
        new = jax.tree.map(lambda a, b: a.astype(b.dtype), new, h)
        return new, (y, new)

    begins = every * jnp.arange(count, dtype=jnp.int32)
    _, (ys, states) = loop(
        jax.checkpoint(body, prevent_cse=False), state, (begins, jax.tree.map(cut, xs))
    )
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:])[:T], ys), states


def _check(T: int, states: State, cu_seqlens: Array, size: int | None) -> int:
    """The number of pieces, or one error."""
    check_cu_seqlens(cu_seqlens, T)
    N = len(cu_seqlens) - 1
    if N < 1:
        raise ValueError("cu_seqlens has one number, expected [N + 1] with N at least 1")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 step, got {size}")
    shapes = [jnp.shape(s) for s in jax.tree.leaves(states)]
    if any(not shape or shape[0] != N for shape in shapes):
        raise ValueError(f"states of {N} pieces have leaves [{N}, ...], got {shapes}")
    return N


def _longer(x: Array, steps: int) -> Array:
    """x [T, ...] and further steps, which are masked; keys, too, have no zeros."""
    last = x[-1:] if len(x) else jnp.empty((1, *x.shape[1:]), x.dtype)
    return jnp.concatenate([x, jnp.broadcast_to(last, (steps, *x.shape[1:]))])


def _at(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _like(flags: Array, x: Array) -> Array:
    return flags.reshape(flags.shape + (1,) * (x.ndim - flags.ndim))
