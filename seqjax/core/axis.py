"""Time split over an axis of a mesh: each device has a piece of the steps, in their order.

Inside `jax.shard_map` (with check_vma=False) the steps of device n follow those of device n - 1.
A piece acts on the state that enters it as one element of a monoid, however many steps it has: the
few elements are exchanged, and each device runs its piece from the state that it begins with.
States given are the same on all devices, and so are the last ones returned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.mesh import loop
from seqjax.core.monoid import Monoid, keep_or_identity


def entering(
    act: Callable[[Any, Any], Any], element: Any, state: Any, axis: str, *, reverse: bool = False
) -> tuple[Any, Any]:
    """The state that this device's piece begins with, and the one after all pieces.

    element: what the piece does to a state, act(element, state). reverse: the last piece is the
    first to act.
    """

    def step(h: Any, e: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda new, old: new.astype(old.dtype), act(e, h), h), h

    last, before = loop(step, state, lax.all_gather(element, axis), reverse=reverse)
    return jax.tree.map(lambda h: h[lax.axis_index(axis)], before), last


def step_before(x: Array, first: Array, axis: str) -> Array:
    """The last x [T, ...] of the device before, and `first` on the first one."""
    ends = lax.all_gather(x[-1], axis)
    return jnp.concatenate([first[None].astype(x.dtype), ends])[lax.axis_index(axis)]


def fold(monoid: Monoid, elements: Any) -> Any:
    """e_1 ... e_T as one element, T >= 1: a tree of depth log T that keeps no prefixes."""
    combine = jax.vmap(monoid.combine)
    while (steps := len(jax.tree.leaves(elements)[0])) > 1:
        if steps % 2:  # one that does nothing
            last = jax.tree.map(lambda e: e[-1], elements)
            unit = keep_or_identity(monoid, jnp.zeros((), bool), last)
            elements = jax.tree.map(lambda e, u: jnp.append(e, u[None], 0), elements, unit)
        elements = combine(*(jax.tree.map(lambda e, n=n: e[n::2], elements) for n in (0, 1)))
    return jax.tree.map(lambda e: e[0], elements)
