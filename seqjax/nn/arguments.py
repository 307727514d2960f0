"""What a call of a layer is given: one clear error for what is wrong, before anything runs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.common import unknown
from seqjax.core.flags import check_cu_seqlens
from seqjax.core.flow import Source


def check_call(
    layer: Any,
    x: Any,
    evaluator: Any,
    *,
    timed: bool,
    resets: Any,
    mask: Any,
    dt: Any,
    cu_seqlens: Any,
    every: Any,
    key: Any,
) -> None:
    """Raise ValueError naming the layer, and what it takes in place of what was given."""
    name = type(layer).__name__
    if getattr(x, "ndim", 0) != 3 or x.shape[2] != layer.features:
        got = list(x.shape) if hasattr(x, "shape") else type(x).__name__
        raise ValueError(f"{name} takes x [B, T, {layer.features}], got {got}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} takes floating-point x, got {x.dtype}; embed tokens first")
    for label, flags in (("resets", resets), ("mask", mask)):
        if flags is None:
            continue
        kind, shape = getattr(flags, "dtype", type(flags).__name__), np.shape(flags)
        if shape != x.shape[:2] or kind != jnp.bool_:
            raise ValueError(
                f"{name} takes {label} bool {list(x.shape[:2])}, got {kind} {list(shape)}"
            )
    if dt is not None:
        if not timed:
            raise ValueError(f"{name} does not read dt, the time between steps: leave it out")
        kind, shape = getattr(dt, "dtype", type(dt).__name__), np.shape(dt)
        if shape != x.shape[:2] or not jnp.issubdtype(kind, jnp.floating):
            raise ValueError(f"{name} takes dt float {list(x.shape[:2])}, got {kind} {list(shape)}")
    if cu_seqlens is not None:
        if not layer.causal:
            raise ValueError(f"{name} is not causal: a piece has no state to begin with")
        check_cu_seqlens(cu_seqlens, *x.shape[:2])
        if every is not None:
            raise ValueError(f"{name} takes cu_seqlens or every, not both")
    if every is not None and not layer.causal:
        raise ValueError(f"{name} is not causal: there are no states on the way")
    if key is not None and (
        not jnp.issubdtype(getattr(key, "dtype", int), jax.dtypes.prng_key)
        or key.shape not in ((), x.shape[:2])
    ):
        got = f"{getattr(key, 'dtype', type(key).__name__)} {list(np.shape(key))}"
        raise ValueError(
            f"{name} takes a key of jax.random.key, or {list(x.shape[:2])} of them, got {got}"
        )
    if evaluator is not None and evaluator not in layer.evaluators:
        raise ValueError(unknown(f"evaluator of {name}", evaluator, layer.evaluators))


def check_source(layer: Any, x: Any, source: Any, sourced: bool) -> None:
    """Raise ValueError unless the layer looks at a source, and this is one."""
    name = type(layer).__name__
    if not sourced:
        raise ValueError(f"{name} does not look at a source: leave it out")
    if not isinstance(source, Source):
        raise ValueError(f"{name} takes a Source(y, present), got {type(source).__name__}")
    y, present = source
    B, *steps, features = np.shape(y) if np.ndim(y) == 3 else (0, 0, 0)
    if B != len(x) or 0 in steps or features != layer.features:
        raise ValueError(
            f"{name} takes a source [{len(x)}, S, {layer.features}] of at least one step, "
            f"got {list(np.shape(y))}"
        )
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(f"{name} takes a floating-point source, got {y.dtype}")
    if present is not None and (np.shape(present) != (B, *steps) or present.dtype != jnp.bool_):
        raise ValueError(
            f"{name} takes present bool {[B, *steps]} of its source, "
            f"got {present.dtype} {list(np.shape(present))}"
        )


def undivided(
    x: Any,
    divides: bool,
    *,
    cu_seqlens: Any,
    every: Any,
    key: Any,
    **beside: Any,
) -> str | None:
    """Why time cannot be split over a mesh axis; None if it can."""
    del beside
    refused = {
        "all of its steps must be on one device": not divides,
        "there are no steps": not x.shape[1],
        "cu_seqlens and every are for one device": cu_seqlens is not None or every is not None,
        "the key must be keys [B, T], those of this device": key is not None and not key.ndim,
    }
    return next((why for why, holds in refused.items() if holds), None)


def check_axis(layer: Any, x: Any, axis: str, divides: bool, **beside: Any) -> None:
    """Raise ValueError where time cannot be split over a mesh axis."""
    if (why := undivided(x, divides, **beside)) is not None:
        name = type(layer).__name__
        raise ValueError(f"{name} cannot split time over the mesh axis {axis!r}: {why}")
