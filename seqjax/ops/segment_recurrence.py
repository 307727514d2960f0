"""What a step of a segment sees: its segment so far, through a cache, and a memory of those before.

    y_t = attend(m, q_t, items of the segment of t, up to t)      m' = fold(m, items of the segment)

as `seqjax.ops.look_back` has it for the steps of a window. `items` is whatever a step leaves behind
(keys, values, inputs ...), `m` whatever is made of whole segments; segments are those of
`seqjax.ops.segments`, and so is the state. A step of a stream costs its own query and items, and
nothing is computed again for the steps of its segment before it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from seqjax.core.flow import takes_flow
from seqjax.core.mesh import cond
from seqjax.ops.segments import (
    SegmentState,
    Window,
    appended,
    first_memory,
    in_some,
    kept_if,
    newest,
    scan_segments,
)


@takes_flow
def segment_recurrence(
    attend: Callable,
    fold: Callable,
    queries: Any,
    items: Any,
    state: SegmentState,
    *,
    start: SegmentState | None = None,
    resets: Array | None = None,
    mask: Array | None = None,
) -> tuple[Any, SegmentState]:
    """Outputs [T, ...] and the state after the last step, for one example.

    queries, items: pytrees of [T, ...]; state.steps holds items, [C - 1, ...] each, in whose dtypes
        they are kept; start: the state that a reset goes to, None: a memory of zeros.
    attend(m, queries, items, i, j, seen): outputs of queries at the places i [n], one after the
        other, from items at the places j [C]; i - j is how many steps a query lies after an item.
        Places count from where the segment began; of segments that resets cut short there may be
        several, all with the memory of the start, and places go on over them. seen bool [n, C]:
        which items a query may look at, its own among them; the others hold anything finite.
    fold(m, items): the memory after a segment, of which items [C, ...] are all.
    """
    C = len(jax.tree.leaves(state.steps)[0]) + 1
    beside: dict[str, Any] = dict(start=start, resets=resets, mask=mask)
    if len(jax.tree.leaves(items)[0]) == 1:
        return single_step(attend, fold, queries, items, state, **beside)
    j = jnp.arange(C, dtype=jnp.int32)

    def body(m: Any, q: Any, items: Any, window: Window) -> tuple[Any, Any]:
        y = attend(m, q, items, window.i, j, window.seen(C))
        return y, kept_if(window.whole, fold(m, items), m)

    return scan_segments(body, queries, items, state, length=C, **beside)


def single_step(
    attend: Callable,
    fold: Callable,
    query: Any,
    item: Any,
    state: SegmentState,
    *,
    start: SegmentState | None,
    resets: Array | None,
    mask: Array | None,
) -> tuple[Any, SegmentState]:
    """The same for one step: it takes the last of C places, where no window has to be cut."""
    memory, count = state.memory, state.count
    if resets is not None:
        memory = kept_if(resets[0], first_memory(state, start), memory)
        count = jnp.where(resets[0], 0, count)
    items = appended(state.steps, item)
    C = len(jax.tree.leaves(items)[0])
    j = jnp.arange(C, dtype=jnp.int32) - (C - 1) + count
    y = attend(memory, query, items, j[C - 1 :], j, (j >= 0)[None])
    whole = count == C - 1
    memory = cond(  # most steps finish no segment
        in_some(whole), lambda m: kept_if(whole, fold(m, items), m), lambda m: m, memory
    )
    count = (count + 1) % C
    new = SegmentState(memory, jax.tree.map(lambda z: newest(z[1:], count), items), count)
    return y, new if mask is None else kept_if(mask[0], new, state)
