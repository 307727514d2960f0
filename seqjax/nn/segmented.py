"""Layers that read a segment of C steps at once, and remember from one segment to the next.

    y, m' = segment(m, x)        x [C, features], y [C, out_features], m what is remembered

Segments begin with the sequence, after every C steps and at every reset; masked steps take no
place in them. A stream may be cut anywhere, so the state of such a layer holds, besides the memory
that the unfinished segment began with, the steps of that segment.

`seqjax.ops.segments` cuts a sequence into segments and runs them one after the other: 3 runs of
`segment` for every C + 2 steps do wherever the resets lie, (T + C - 1) / C where there are none.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from seqjax.core.flow import Carry, Flow
from seqjax.nn.base import Layer
from seqjax.nn.states import like_state, without_nans_of_pieces
from seqjax.ops.quarantine import mark
from seqjax.ops.segments import SegmentState, kept_if, scan_segments


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

    One that is not `causal` may look at all steps of its segment, those of flow.mask, and a call
    ends its last segment: the memory returned is the one after it, and a stream is cut between
    segments. Where x holds several segments, the memory is the one after the last.
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
        def body(memory, _, steps, window):
            m, there = Carry(memory, memory), None
            if not self.causal:
                there = jnp.pad(window.there, (0, self.length - len(window.there)))
            inside = Flow(window.resets, there, evaluator=flow.evaluator)
            y, new = self.segment(m, steps.astype(x.dtype), inside)
            new = like_state(memory, new, type(self).__name__)
            counts = window.whole if there is None else jnp.any(there)
            return y.at[window.i].get(mode="clip"), kept_if(counts, new, memory)

        if self.causal:
            return scan_segments(body, (), x, h, length=self.length, flow=flow)
        x, lost, at_end = without_nans_of_pieces(x, flow)
        y, state = scan_segments(body, (), x, h, length=self.length, flow=flow)
        ended = self.initial()._replace(memory=mark(at_end, state.memory))
        return mark(lost, y), ended
