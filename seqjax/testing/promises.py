"""What a layer declares, tried: the laws of its algebra, the structure of its Jacobian, the shapes
and dtypes of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.monoid import Monoid, check_element
from seqjax.core.newton import STRUCTURES, layout
from seqjax.nn.base import Layer, cast_parameters


class LawBroken(AssertionError):
    """A law does not hold; `law` is its name, `gap` by how much, `found` the gaps of all tried."""

    def __init__(self, message: str, law: str, gap: float, found: dict[str, float] | None = None):
        super().__init__(message)
        self.law, self.gap, self.found = law, gap, found or {law: gap}


def distance(a: Any, b: Any) -> Array:
    """The largest difference of two trees, relative to 1 + the largest number of each leaf of b.

    What is not finite counts as infinitely far, also from itself. Leaves of integers are not looked
    at. Traceable; of numpy arrays it is computed by numpy.
    """
    worst = 0.0
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if any(jnp.issubdtype(jnp.result_type(v), jnp.inexact) for v in (x, y)):
            lib = library(x, y)
            gap = lib.max(gap_of(x, y), initial=0).astype(jnp.result_type(float))
            worst = library(worst, gap).maximum(worst, gap)
    return library(worst).asarray(worst)


def gap_of(x: Any, y: Any) -> Any:
    """|x - y| relative to 1 + the largest of all y; infinite where that is NaN.

    NaN is made infinite before any maximum: XLA on CPU drops it from that of 4096 numbers or more.
    """
    lib = library(x, y)
    x, y = lib.asarray(x), lib.asarray(y)
    size = lib.max(lib.where(lib.isfinite(y), lib.abs(y), 0), initial=0)
    with np.errstate(invalid="ignore"):
        gap = lib.abs(x - y) / (1 + size)
    return lib.where(lib.isnan(gap), lib.inf, gap)


def library(*arrays: Any) -> Any:
    """jax.numpy if any of the arrays is one of jax, else numpy."""
    return jnp if any(isinstance(x, jax.Array) for x in arrays) else np


def check_monoid(
    monoid: Monoid,
    elements: Any,
    state: Any,
    *,
    tolerance: float | None = None,
    canonical: Callable[[Any], Any] = lambda h: h,
    name: str = "the monoid",
) -> None:
    """Raise LawBroken unless the laws hold of these elements, as they act on this state.

        act(combine(p, q), h) == act(q, act(p, h))
        combine(combine(p, q), r) == combine(p, combine(q, r))
        act(identity(p), h) == h, and combined with p from either side it is p

    elements: a pytree with a leading axis of three or more, such as lifted inputs; state: one that
    they act on, best a random one. Elements are compared by what they do to the state.
    tolerance: of `distance`; by default a hundred roundings of the state's dtype.
    canonical: of states, where several are equal (as `Layer.canonical`).
    """
    check_element(f"{name}: an element", monoid, elements, state)
    count = min(jnp.shape(x)[0] for x in jax.tree.leaves(elements))
    if count < 3:
        raise ValueError(f"{name}: three elements are needed for its laws, got {count}")
    p, q, r = (jax.tree.map(lambda x, n=n: jnp.asarray(x)[n], elements) for n in range(3))
    combine, act, unit = monoid.combine, monoid.act, monoid.identity
    for what, made in (("combine(p, q)", combine), ("identity(p)", lambda p, q: unit(p))):
        shapes = [jax.tree.map(jnp.shape, e) for e in (jax.eval_shape(made, p, q), p)]
        if shapes[0] != shapes[1]:
            raise LawBroken(
                f"{name}: {what} has shapes {shapes[0]}, an element has {shapes[1]}.",
                "shapes",
                float("inf"),
            )

    @jax.jit  # taken one by one, its operations would all be compiled
    def gaps(p: Any, q: Any, r: Any, h: Any) -> dict[str, Array]:
        laws = {
            "act(combine(p, q), h) == act(q, act(p, h))": (
                act(combine(p, q), h), act(q, act(p, h))
            ),
            "combine(combine(p, q), r) == combine(p, combine(q, r))": (
                act(combine(combine(p, q), r), h), act(combine(p, combine(q, r)), h)
            ),
            "act(identity(p), h) == h": (act(unit(p), h), h),
            "combine(identity(p), p) == p": (act(combine(unit(p), p), h), act(p, h)),
            "combine(p, identity(p)) == p": (act(combine(p, unit(p)), h), act(p, h)),
        }  # fmt: skip
        return {law: distance(*map(canonical, sides)) for law, sides in laws.items()}

    limit = tolerance if tolerance is not None else 100 * _rounding(state)
    for law, gap in gaps(p, q, r, state).items():
        if not gap <= limit:
            raise LawBroken(f'{name} breaks "{law}", by {gap:.2g}.', law, float(gap))


def check_jacobian(
    step: Callable[[Any, Any], Any],
    state: Any,
    x: Any,
    jacobian: str,
    *,
    tolerance: float | None = None,
    name: str = "the step",
) -> None:
    """Raise LawBroken unless dh/dh' of h = step(h', x) has the structure `jacobian` names.

    It is one of seqjax.core.newton.STRUCTURES, as in `Recurrent.jacobian`.

    A matrix J has it if and only if it commutes with every scaling by one number per unit
    ("diagonal") or block of the state ("block_diagonal"): J (s v) == s J v, here for random s and
    v, by two jvps. It is tried at this state and input; a random state shows most.
    """
    if jacobian not in STRUCTURES:
        raise ValueError(f"{name}: jacobian is {jacobian!r}, expected one of {tuple(STRUCTURES)}")
    if jacobian == "dense":
        return
    try:
        ravel, unravel = layout(state, jacobian)
    except ValueError as error:
        message = f"{name} declares what it cannot have: {error}."
        raise LawBroken(message, "declared jacobian", float("inf")) from None
    draw, state = np.random.default_rng(0), ravel(state)
    per = state.shape if jacobian == "diagonal" else (len(state), 1)
    s = jnp.asarray(draw.uniform(0.5, 2.0, per)).astype(state.dtype) + jnp.zeros_like(state)
    v = jnp.asarray(draw.normal(size=state.shape)).astype(state.dtype)

    def J(v: Array) -> Array:
        return jax.jvp(lambda h: ravel(step(unravel(h), x)), (state,), (v,))[1]

    gap = float(jax.jit(lambda: distance(J(s * v), s * J(v)))())
    if not gap <= (tolerance if tolerance is not None else 100 * _rounding(state)):
        what = "units see each other" if jacobian == "diagonal" else "blocks see each other"
        raise LawBroken(
            f'{name} breaks "jacobian is {jacobian}", by {gap:.2g}: {what}.',
            "declared jacobian",
            gap,
        )


def check_shapes(layer: Layer, batch: int = 2, steps: int = 14) -> None:
    """Raise LawBroken unless outputs have the dtype of x, and the state returned is the one
    accepted, kept in at least float32: of numbers of 16 and of 32 bits. Traced, never run; of the
    layer's parameters only shapes are looked at."""

    def call(layer: Layer, x: jax.Array) -> Any:
        layer = cast_parameters(layer, jnp.float32)
        h = layer.batch_state(batch, x.dtype)
        return h, *layer(x, h)

    for dtype in (jnp.bfloat16, jnp.float32):
        x = jax.ShapeDtypeStruct((batch, steps, layer.features), dtype)
        h, y, new = jax.eval_shape(call, layer, x)
        kinds = [[(v.shape, v.dtype, v.weak_type) for v in jax.tree.leaves(t)] for t in (h, new)]
        low = [v for v in jax.tree.leaves(new) if v.dtype in (jnp.bfloat16, jnp.float16)]
        expected = (batch, steps, layer.out_features)
        if (y.shape, y.dtype) != (expected, dtype) or kinds[0] != kinds[1] or low:
            message = (
                f'{type(layer).__name__} breaks "shapes and dtypes": it returns {y.dtype} '
                f"{list(y.shape)} and a state of {kinds[1]} for x of {x.dtype} {list(x.shape)} and "
                f"a state of {kinds[0]}, expected {x.dtype} {list(expected)} and the same state, "
                "in at least float32."
            )
            raise LawBroken(message, "shapes and dtypes", float("inf"))


def _rounding(state: Any) -> float:
    kinds = [jnp.result_type(s) for s in jax.tree.leaves(state)]
    return max(
        (float(jnp.finfo(k).eps) for k in kinds if jnp.issubdtype(k, jnp.inexact)), default=0
    )
