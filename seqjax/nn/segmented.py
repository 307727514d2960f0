"""Layers that read a segment of C steps at once, and remember from one segment to the next.

    y, m' = segment(m, x)        x [C, features], y [C, out_features], m what is remembered

Segments begin with the sequence, after every C steps and at every reset; masked steps take no
place in them. A stream may be cut anywhere, so the state of such a layer holds, besides the memory
that the unfinished segment began with, the steps of that segment.

What is run is a scan over *windows* of C places: the steps of the unfinished segment, then new
ones. Segments that a reset cuts short share a window, one after the other: each of them begins with
the same memory, the start. So 3 windows do for every C + 2 steps, wherever the resets lie, and
(T + C - 1) / C where there are none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.flow import Carry, Flow
from seqjax.nn.base import Layer
from seqjax.nn.states import like_state


class SegmentState(NamedTuple):
    memory: Any  # that the unfinished segment began with
    steps: Array  # [C - 1, features], of the unfinished segment: the newest at the end, else zeros
    count: Array  # int32 [], how many of them there are


class Segmented(Layer):
    """A recurrence over segments of `length` steps (C).

    A subclass sets `length` and defines

        memory()                    what is remembered, before the first segment
        segment(m, x, flow)         -> y [C, out_features] and the memory after it

    for one example, with x [C, features] and m a Carry, as in a layer's `run`. x holds zeros in
    place of the steps that are not there yet: y[t] may depend on m and x[: t + 1] only, and the
    memory returned counts only where all C steps were there. Where flow.resets is set inside the
    segment, another one begins, with the same m: whatever looks at other steps takes the flow (ops,
    convolutions, `flow.joined`), and the memory returned is not looked at. An unfinished segment is
    run again in the next call: of its steps x is kept, not dt and not their keys, so that the flow
    of a segment has neither.
    """

    length: int
    learned = "memory"  # of steps that were never there, nothing

    def memory(self) -> Any:
        raise TypeError(f"{type(self).__name__} must define memory()")

    def segment(self, m: Carry, x: Array, flow: Flow) -> tuple[Array, Any]:
        raise TypeError(f"{type(self).__name__} must define segment(m, x, flow)")

    def initial(self):
        if getattr(self, "length", 0) < 1:
            raise TypeError(f"{type(self).__name__} must set length to at least 1 step")
        steps = jnp.zeros((self.length - 1, self.features))
        return SegmentState(self.memory(), steps, jnp.zeros((), jnp.int32))

    def run(self, x, h, flow):
        T, C, state = len(x), self.length, h.now
        kept = jnp.ones(T, bool) if flow.mask is None else flow.mask
        order = jnp.argsort(~kept, stable=True)  # steps that are left out go behind the others
        n = jnp.sum(kept, dtype=jnp.int32)
        begins = jnp.zeros(T + C, bool)
        if flow.begins is not None:
            begins = begins.at[:T].set(flow.begins[order])
        windows = _windows(begins, n, -state.count, T, C, flow.resets is not None)

        # the steps of the unfinished segment lie right before the new ones: a window is one slice
        padding = jnp.zeros((C, x.shape[1]), x.dtype)
        z = jnp.concatenate([state.steps.astype(x.dtype), x[order], padding])
        inside = jnp.concatenate([jnp.zeros(C - 1, bool), begins])
        place = jnp.arange(C, dtype=jnp.int32)

        def body(memory, window):
            m = jax.tree.map(lambda a, b: jnp.where(window.fresh, a, b), h.start.memory, memory)
            there = window.begin + place < window.end
            steps = lax.dynamic_slice_in_dim(z, window.begin + C - 1, C)
            steps = jnp.where(there[:, None], steps, 0)
            resets = None
            if flow.resets is not None:
                resets = lax.dynamic_slice_in_dim(inside, window.begin + C - 1, C)
                resets = resets & there & (place > 0)
            inner = Flow(resets, evaluator=flow.evaluator)
            y, new = self.segment(Carry(m, m), steps, inner)
            new = like_state(m, new, type(self).__name__)
            return jax.tree.map(lambda a, b: jnp.where(window.whole, a, b), new, m), y

        memory, ys = lax.scan(jax.checkpoint(body, prevent_cse=False), state.memory, windows)
        step = jnp.arange(T, dtype=jnp.int32)
        of = jnp.clip(jnp.searchsorted(windows.begin, step, side="right") - 1, 0)
        y = ys[of, jnp.clip(step - windows.begin[of], 0, C - 1)]
        y = y if flow.mask is None else y[jnp.argsort(order)]

        # windows that begin at n are empty
        count = n - jnp.max(jnp.where(windows.begin < n, windows.segment, -state.count))
        steps = lax.dynamic_slice_in_dim(z, n, C - 1)
        age = C - 1 - jnp.arange(C - 1, dtype=jnp.int32)
        steps = jnp.where((age <= count)[:, None], steps, 0).astype(state.steps.dtype)
        return y, SegmentState(memory, steps, count)


class Window(NamedTuple):
    """Steps `begin` to `end` of those that are kept; before 0 lie those of the unfinished one."""

    begin: Array
    end: Array
    fresh: Array  # it begins with a reset
    whole: Array  # it is one segment, and all of it
    segment: Array  # the step that the segment begins with which is unfinished after it


def _windows(begins: Array, n: Array, first: Array, T: int, C: int, resets: bool) -> Window:
    """The windows of n <= T steps, `first` = -(steps of the unfinished segment)."""
    size = 1 - (1 - T) // C
    if resets:
        size = 3 * ((T - 1) // (C + 2)) + min(3, 1 + (T - 1) % (C + 2))
    place = jnp.arange(1, C, dtype=jnp.int32)
    first = jnp.where(begins[0] & (n > 0), 0, first)

    def cut(begin: Array, _: None) -> tuple[Array, Window]:
        fresh = (begin >= 0) & begins[jnp.clip(begin, 0)] & (begin < n)
        full = jnp.minimum(begin + C, n)
        at = begin + place
        marks = (at >= 0) & (at < full) & begins[jnp.clip(at, 0, len(begins) - 1)]
        cuts, far = jnp.any(marks), begin + C
        next_reset = jnp.min(jnp.where(marks, at, far), initial=jnp.iinfo(jnp.int32).max)
        last_reset = jnp.max(jnp.where(marks, at, begin), initial=jnp.iinfo(jnp.int32).min)
        fits = (far >= n) | begins[jnp.clip(far, 0, len(begins) - 1)]
        end = jnp.where(cuts & ~fresh, next_reset, jnp.where(cuts & ~fits, last_reset, full))
        whole = ~cuts & (end - begin == C)
        segment = jnp.where(whole, end, jnp.where(cuts & fresh & fits, last_reset, begin))
        return end, Window(begin, end, fresh, whole, segment)

    return lax.scan(cut, first, length=size)[1]


def by_length(body: Any, length: int, x: Array, h: Carry, flow: Flow) -> tuple[Array, Any]:
    """y and the state of body(h, x, flow) taken `length` steps at a time, wherever they lie.

    For a body that is right for any number of steps: it bounds what the backward pass keeps.
    """
    count = len(x) // length
    whole = count * length

    def split(v):
        return v[:whole].reshape(count, length, *v.shape[1:])

    def step(state, now):
        y, new = body(Carry(state, h.start), *now)
        return jax.tree.map(lambda a, b: a.astype(b.dtype), new, state), y

    xs, state, outputs = (x, flow), h.now, []
    if count:
        state, y = lax.scan(step, state, jax.tree.map(split, xs))
        outputs.append(y.reshape(whole, *y.shape[2:]))
    if whole < len(x) or not count:
        state, y = step(state, jax.tree.map(lambda v: v[whole:], xs))
        outputs.append(y)
    return jnp.concatenate(outputs), state
