"""Flags of packed sequences: where the pieces of a row begin, and which of its steps are padding.

Ops and layers take two flags per step: `resets` forgets the past before a step, `mask` leaves out
the steps where it is not set (a reset there counts for nothing). Packed data come with their pieces
written down in another way, of which two are common:

    cu_seqlens    [N + 1]  0 = c_0 <= c_1 <= ... <= c_N: piece n has the steps c_{n-1} ... c_n - 1
    segment ids   [B, T]   steps of one piece carry one number

    resets, mask = from_cu_seqlens(cu_seqlens, steps)           [T] each: a row without batch axis
    resets, mask = from_segment_ids(ids, padding=0)             [B, T] each
    y, state = op(..., resets=resets, mask=mask)
    y, state = op(..., resets=ends(resets, mask), mask=mask, reverse=True)

One state enters a row and one leaves it, that of its last piece; for a state of each piece see
`seqjax.core.pieces`. All of it may be traced.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer


class Flags(NamedTuple):
    resets: Array  # bool; the first step of each piece
    mask: Array | None  # bool; None where no step is padding


def from_cu_seqlens(cu_seqlens: Array, steps: int, *, continued: bool = False) -> Flags:
    """Flags [steps] of a row that holds N pieces one after the other.

    cu_seqlens: integers [N + 1], the sums of the lengths of the pieces, from 0. What lies between
        the last of them and `steps` is padding. A piece of no steps leaves no reset.
    continued: the first piece goes on from the state that is given, so its first step does not
        reset (if it has no steps, the next piece does all the same).
    Raises as `check_cu_seqlens`.
    """
    check_cu_seqlens(cu_seqlens, steps)
    cu_seqlens = jnp.asarray(cu_seqlens).astype(jnp.int32)
    begins = cu_seqlens[:-1] < cu_seqlens[1:]
    if continued and len(begins):
        begins = begins.at[0].set(False)
    first = jnp.where(begins, cu_seqlens[:-1], steps)  # out of the row: no step
    resets = jnp.zeros(steps, bool).at[first].set(True, mode="drop")
    return Flags(resets, jnp.arange(steps, dtype=jnp.int32) < cu_seqlens[-1])


def from_segment_ids(
    ids: Array, *, padding: int | None = None, before: Array | None = None
) -> Flags:
    """Flags of steps that carry the number of their piece: a piece begins where it changes.

    ids: integers [B, T] or [T]. They need not be in order.
    padding: the number of steps that are padding (0 or -1, by convention); None: there are none,
        and no mask. A piece goes on behind padding if its number does.
    before: integers [B] or [], the number of the last step that is no padding in the call before,
        whose state is given here: a piece that goes on across calls does not reset. None: the first
        step of a row begins a piece.
    Raises TypeError or ValueError for what are no integers of these shapes.
    """
    _integers("ids", ids, (1, 2), "[B, T] or [T]")
    ids = jnp.asarray(ids)
    place = jnp.broadcast_to(jnp.arange(ids.shape[-1], dtype=jnp.int32), ids.shape)
    mask = None if padding is None else ids != padding
    kept = place if mask is None else jnp.where(mask, place, -1)
    # the last kept step before each one; -1: none, in this row
    last = lax.cummax(jnp.concatenate([jnp.full_like(kept[..., :1], -1), kept], -1), ids.ndim - 1)
    last = last[..., :-1]
    same = jnp.take_along_axis(ids, jnp.maximum(last, 0), -1) == ids
    if before is None:
        entering = jnp.zeros(ids.shape, bool)
    else:
        _integers("before", before, (ids.ndim - 1,), str(list(ids.shape[:-1])))
        if before.shape != ids.shape[:-1]:
            raise ValueError(f"before has shape {before.shape}, expected {ids.shape[:-1]}")
        entering = before[..., None].astype(ids.dtype) == ids
    resets = ~jnp.where(last < 0, entering, same)
    return Flags(resets if mask is None else resets & mask, mask)


def ends(resets: Array, mask: Array | None = None, after: Array | None = None) -> Array:
    """bool [..., T]: the last kept step of each piece that a reset ends.

    These are the resets of the same pieces for a sequence that is read from its end. The last piece
    has no mark: it begins with the state that is given.

    after: bool [...], whether the first kept step behind these is a reset; None: there is none.
    """
    T = resets.shape[-1]
    place = jnp.broadcast_to(jnp.arange(T), resets.shape)
    kept = place if mask is None else jnp.where(mask, place, T)
    end = ((0, 0),) * (resets.ndim - 1) + ((0, 1),)
    # the next kept step after each
    later = jnp.pad(kept, end, constant_values=T)[..., 1:]
    following = lax.cummin(later, resets.ndim - 1, reverse=True)
    behind = jnp.zeros(resets.shape[:-1], bool) if after is None else after
    return jnp.take_along_axis(jnp.append(resets, behind[..., None], -1), following, -1)


def check_cu_seqlens(cu_seqlens: Array, *shape: int) -> None:
    """Raise TypeError or ValueError for what are no integers [N + 1] for rows of shape [T], or
    [B, N + 1] for [B, T], and (unless it is traced) for sums that do not begin with 0, fall, or
    exceed T."""
    expected = "[N + 1]" if len(shape) == 1 else f"[{shape[0]}, N + 1]"
    _integers("cu_seqlens", cu_seqlens, (len(shape),), expected)
    if cu_seqlens.shape[:-1] != shape[:-1]:
        raise ValueError(f"cu_seqlens has shape {cu_seqlens.shape}, expected {expected}")
    if not cu_seqlens.shape[-1]:
        raise ValueError(f"cu_seqlens is empty, expected {expected} sums that begin with 0")
    if isinstance(cu_seqlens, Tracer):
        return
    sums = np.asarray(cu_seqlens)
    wrong = (sums[..., 0] != 0) | np.any(np.diff(sums) < 0, -1) | (sums[..., -1] > shape[-1])
    if np.any(wrong):
        raise ValueError(
            f"cu_seqlens is {sums[wrong][0].tolist() if sums.ndim > 1 else sums.tolist()}, "
            f"expected sums from 0 that never fall, up to steps = {shape[-1]}"
        )


def _integers(name: str, x: Array, ranks: tuple[int, ...], expected: str) -> None:
    kind, shape = getattr(x, "dtype", type(x).__name__), np.shape(x)
    if not hasattr(x, "dtype") or not jnp.issubdtype(kind, jnp.integer):
        raise TypeError(f"{name} is {kind} {list(shape)}, expected integers {expected}")
    if len(shape) not in ranks:
        raise ValueError(f"{name} has shape {shape}, expected {expected}")
