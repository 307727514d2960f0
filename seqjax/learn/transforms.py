"""Watching gradients: an optax transformation that changes nothing and remembers their norm.

    optax.chain(monitor_norm(), optax.clip_by_global_norm(1.0), optax.adam(1e-3))

Clipping is optax's own; placed before it, the norms are those of the raw gradients. They are read
off the optimiser's state by `optax.tree.get(moments, "NormState")`. optax.monitor does the like,
but its state gains entries at the first update, so that no `lax.scan` over updates carries it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqjax.core.common import accumulation_dtype


class NormState(NamedTuple):
    """Global norm of the gradients: of the last update, and over all of them."""

    steps: jax.Array  # int32
    last: jax.Array
    mean: jax.Array
    largest: jax.Array


def monitor_norm() -> optax.GradientTransformation:
    """The last, mean and largest global norm of what passes through. O(1) memory."""

    def init(params) -> NormState:
        zero = jnp.zeros((), accumulation_dtype(*jax.tree.leaves(params)))
        return NormState(jnp.zeros((), jnp.int32), zero, zero, zero)

    def update(updates, state, params=None):
        del params
        dtype = state.last.dtype
        norm = optax.tree.norm(jax.tree.map(lambda u: u.astype(dtype), updates))
        steps = state.steps + 1
        mean = state.mean + (norm - state.mean) / steps.astype(dtype)
        return updates, NormState(steps, norm, mean, jnp.maximum(state.largest, norm))

    return optax.GradientTransformation(init, update)
