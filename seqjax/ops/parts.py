"""The chunks of a stream: `size` steps each, from where it began and from every reset.

A masked step takes no place in them. A sequence may begin and end inside a chunk, and where chunks
begin depends on the flags, so it is not cut at every `size` steps but into parts: a part ends where
a chunk ends, or with `size` steps. Besides the chunk that entered, a part holds only chunks that
begin with a reset, and it holds all that is left of the first one or nothing that comes after it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.ops.op import like


def scan_parts(
    body: Callable, state: Any, xs: Any, last: Array, size: int, resets=None, mask=None
) -> tuple[Any, Any]:
    """Scan body(state, x [C, ...], last, resets, keep [C]) -> (y [C, ...], state) over the parts.

    last bool [T]: the steps with which a chunk ends. The steps of a part that are not `keep` are
    masked or belong to a later part; the other flags are not set there. The backward pass runs
    each part again.
    """
    last = last if mask is None else last & mask
    steps = len(last)
    length = max(1, min(size, steps))
    # Without flags all parts but the first and the last are chunks; with flags they may end early,
    # but never two in a row: what follows the end of a chunk has room for another.
    if resets is None and mask is None:
        count = -(-(steps - 1) // length) + 1 if steps else 0
    else:
        count = 2 * -(-steps // (length + 1))
    place = jnp.arange(steps, dtype=jnp.int32)
    ends = lax.cummin(jnp.where(last, place + 1, steps), reverse=True)
    ends = jnp.pad(ends, (0, 1), constant_values=steps)

    def cut(begin: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        end = jnp.minimum(ends[begin], begin + length)
        return end, (begin, end)

    _, (begin, end) = lax.scan(cut, jnp.zeros((), jnp.int32), length=count)
    keep = begin[:, None] + jnp.arange(length, dtype=jnp.int32)[None] < end[:, None]

    def parts(z: Array) -> Array:
        z = jnp.pad(z, [(0, length)] + [(0, 0)] * (z.ndim - 1))
        return jax.vmap(lambda n: lax.dynamic_slice_in_dim(z, n, length))(begin)

    def joined(y: Array) -> Array:
        """Back in place: the transpose of cutting into parts that do not overlap."""
        whole = jax.ShapeDtypeStruct((steps, *y.shape[2:]), y.dtype)
        return jax.linear_transpose(parts, whole)(jnp.where(like(keep, y), y, 0))[0]

    def step(state: Any, now: Any) -> tuple[Any, Any]:
        y, state = body(state, *now)
        return state, y

    left = keep if mask is None else keep & parts(mask)
    flags = parts(last) & left, None if resets is None else parts(resets) & left, left
    now = (jax.tree.map(parts, xs), *flags)
    state, y = lax.scan(jax.checkpoint(step, prevent_cse=False), state, now)
    return jax.tree.map(joined, y), state
