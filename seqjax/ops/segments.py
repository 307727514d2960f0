"""The segments of a stream: C steps each, from where it began and from every reset.

Masked steps take no place in them, and a stream may be cut anywhere, also inside a segment. What is
run is a scan over *windows* of C places: the rest of the segment that is not finished, a whole
segment, or the segments that resets cut short, one after the other. All of a window begins with one
memory: the one carried on, or the start where the window begins with a reset. So 1 + (T - 1) / C
windows do, rounded up, and 3 for every C + 2 steps wherever there are resets.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from seqjax.core.flow import Flow, takes_flow
from seqjax.core.mesh import alike, cond, loop
from seqjax.ops.arguments import like


class SegmentState(NamedTuple):
    memory: Any  # that the unfinished segment began with
    steps: Any  # [C - 1, ...], of the unfinished segment: the newest at the end, else zeros
    count: Array  # int32 [], how many of them there are


class Window(NamedTuple):
    """A window of C places; n = min(C, T) of them are for steps of this call."""

    i: Array  # int32 [n], their places
    there: Array  # bool [n], whether there is a step: where not, all it brings is zero
    resets: Any  # bool [C], where a segment begins that is not the first; or None
    whole: Array  # bool [], whether it is one segment, and all of it

    @property
    def flow(self) -> Flow:
        """Of the n steps. A window has resets or goes on with a segment, never both."""
        return Flow(None if self.resets is None else self.resets[: len(self.i)], self.there)

    def seen(self, length: int) -> Array:
        """bool [n, C]: which places a step sees, those of its segment up to itself."""
        i = jnp.minimum(self.i, length - 1)
        j = jnp.arange(length, dtype=jnp.int32)
        seen = j[None] <= i[:, None]
        if self.resets is None:
            return seen
        piece = jnp.cumsum(self.resets)
        return seen & (piece[i][:, None] == piece[None])


@takes_flow
def scan_segments(
    body: Callable,
    xs: Any,
    items: Any,
    state: SegmentState,
    *,
    length: int,
    start: SegmentState | None = None,
    resets: Array | None = None,
    mask: Array | None = None,
) -> tuple[Any, SegmentState]:
    """Scan body(m, xs [n, ...], items [C, ...], window) -> (y [n, ...], m) over the windows.

    xs, items: pytrees of [T, ...]; state.steps holds the items of the unfinished segment. The body
    gets those of the window, by its places, and zeros where there is none. Its m goes to the next
    window as it is: where a segment is not `window.whole`, a memory of whole segments stays. The
    backward pass runs each window again.
    """
    T, C = len(jax.tree.leaves((xs, items))[0]), length
    n, taken, back = min(C, T), jnp.int32(T), None
    if mask is not None:  # the steps that are taken go to the front, and their outputs back
        order = jnp.argsort(~mask, stable=True)
        taken, back = jnp.sum(mask, dtype=jnp.int32), jnp.maximum(jnp.cumsum(mask) - 1, 0)
        xs, items = jax.tree.map(lambda z: z[order], (xs, items))
        resets = None if resets is None else (resets & mask)[order]
    cuts, count = windows(state.count, taken, resets, T, C)
    here = jnp.maximum(cuts.begin, 0)  # where the steps of this call begin
    place = jnp.arange(C, dtype=jnp.int32)[None]
    there = here[:, None] + place[:, :n] < cuts.end[:, None]
    inside = cuts.begin[:, None] + place < cuts.end[:, None]

    def sliced(z: Array, begin: Array, there: Array) -> Array:
        """z [windows, size, ...] from `begin` on, zero where it is not there."""
        size = there.shape[1]
        z = jnp.pad(z, ((0, size), *((0, 0),) * (z.ndim - 1)))
        z = jax.vmap(lambda n: lax.dynamic_slice_in_dim(z, n, size))(begin)
        return jnp.where(like(there, z), z, jnp.zeros_like(z))

    # the steps of the unfinished segment lie right before the new ones: a window is one slice
    items = appended(state.steps, items)
    marks = None
    if resets is not None:
        marks = sliced(jnp.pad(resets, (C - 1, 0)), cuts.begin + C - 1, inside & (place > 0))
    now = (
        jax.tree.map(lambda z: sliced(z, here, there), xs),
        jax.tree.map(lambda z: sliced(z, cuts.begin + C - 1, inside), items),
        Window((here - cuts.begin)[:, None] + place[:, :n], there, marks, cuts.whole),
    )

    @partial(jax.checkpoint, prevent_cse=False)
    def run(m: Any, fresh: Array, now: Any) -> tuple[Any, Any]:
        if resets is not None:
            m = kept_if(fresh, first_memory(state, start), m)
        y, m = body(m, *now)
        return m, y

    def step(m: Any, given: Any) -> tuple[Any, Any]:
        wanted, *given = given
        if wanted is None:
            return run(m, *given)
        y = jax.eval_shape(run, m, *given)[1]
        nothing = jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), y)
        return cond(wanted, run, lambda m, *_: (m, nothing), m, *given)

    # with resets the last windows of many are mostly empty
    wanted = None if resets is None else in_some(cuts.begin < cuts.end)
    memory, y = loop(step, state.memory, (wanted, cuts.fresh, now))

    def joined(y: Array) -> Array:
        """Back in place: the transpose of cutting into windows that do not overlap."""
        whole, y, *cut = alike(jnp.zeros((T, *y.shape[2:]), y.dtype), y, here, there)
        y = jax.vjp(lambda z: sliced(z, *cut), whole)[1](y)[0]
        return y if back is None else y[back]

    steps = jax.tree.map(lambda z: newest(lax.dynamic_slice_in_dim(z, taken, C - 1), count), items)
    return jax.tree.map(joined, y), SegmentState(memory, steps, count)


class Cuts(NamedTuple):
    """Windows of the steps `begin` to `end`; those below 0 are of earlier calls."""

    begin: Array
    end: Array
    fresh: Array  # it begins with a reset
    whole: Array  # it is one segment, and all of it


def windows(count: Array, n: Array, resets: Any, T: int, C: int) -> tuple[Cuts, Array]:
    """The windows of n <= T steps, of which `count` before went into the unfinished segment, and
    that count after them."""
    if resets is None:
        begin = jnp.minimum(C * jnp.arange(1 - (1 - T) // C, dtype=jnp.int32) - count, n)
        end = jnp.minimum(begin + C, n)
        return Cuts(begin, end, jnp.zeros_like(begin, bool), end - begin == C), (count + n) % C
    step = jnp.arange(T + 1, dtype=jnp.int32)
    resets = jnp.append(resets, False)
    latest = lax.cummax(jnp.where(resets, step, -1))
    coming = lax.cummin(jnp.where(resets, step, T), reverse=True)

    def cut(begin: Array, _: None) -> tuple[Array, Cuts]:
        far, fresh = begin + C, (begin >= 0) & resets[begin]
        end, following = jnp.minimum(far, n), coming[jnp.maximum(begin + 1, 0)]
        # of short segments as many as fit, of which one goes on behind the window only alone
        last = latest[jnp.minimum(far, T)]
        alone = (far >= n) | (last <= begin)
        last = jnp.where(alone, end, last)
        end = jnp.where(fresh, last, jnp.minimum(end, following))
        whole = (end - begin == C) & (following >= end)
        return end, Cuts(begin, end, fresh, whole)

    length = 3 * ((T - 1) // (C + 2)) + min(3, 1 + (T - 1) % (C + 2))
    cuts = loop(cut, jnp.where(resets[0], 0, -count), length=length)[1]
    last = latest[-1]
    return cuts, jnp.where(last < 0, count + n, n - last) % C


def first_memory(state: SegmentState, start: SegmentState | None) -> Any:
    """What a reset goes to: the memory of the start, by default zeros."""
    return jax.tree.map(jnp.zeros_like, state.memory) if start is None else start.memory


def kept_if(flag: Array, new: Any, old: Any) -> Any:
    """A memory, in the dtypes of the old one."""
    return jax.tree.map(lambda a, b: jnp.where(flag, a.astype(b.dtype), b), new, old)


def appended(steps: Any, items: Any) -> Any:
    """The items of the unfinished segment, and new ones [T, ...] behind them."""
    return jax.tree.map(lambda z, new: jnp.concatenate([z, new.astype(z.dtype)]), steps, items)


def newest(z: Array, count: Array) -> Array:
    """z with zeros for all but the last `count`."""
    kept = jnp.arange(len(z), dtype=jnp.int32) >= len(z) - count
    return jnp.where(like(kept, z), z, jnp.zeros_like(z))


@custom_vmap
def in_some(flags: Array) -> Array:
    """Flags, set in all examples of a batch where they are in one: a branch is chosen for all."""
    return flags


@in_some.def_vmap
def _(size: int, batched: list[bool], flags: Array) -> tuple[Array, bool]:
    del size, batched
    return in_some(jnp.any(flags, axis=0)), False
