"""Arrays on the devices of a mesh: a batch that is split over some, and loops inside `shard_map`.

A batch may be split over axes of a mesh, examples, or steps, or both. `placed` finds it in the type
of an array (a mesh with explicit axes, the default of jax) or in what `devices` sets (in a training
step, whose arrays have no such types), and `apart` runs a function of the batch on each device's
part of it, so that nothing inside knows of it, kernels included.

Inside `jax.shard_map` (with check_vma, its default) the type of an array has the mesh axes that it
varies over. A loop wants a carry of one type from the first step to the last, and a first state,
made of nothing, varies over none: `loop` and `settled` give it the type that the steps give it.
Outside of `shard_map` they are `lax.scan` and nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import jax
from jax import lax
from jax.core import Tracer
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

C = TypeVar("C")

# ---- a batch on several devices --------------------------------------------------------------


class Place(NamedTuple):
    """Where a batch [B, T, ...] lies: of a mesh, the axes that B and T are split over."""

    mesh: Any
    batch: tuple[str, ...]
    time: tuple[str, ...] = ()
    # (name, shape) -> of a parameter where it is used, which is whole on the axes of the batch
    parameter: Callable[[str, tuple[int, ...]], PartitionSpec] | None = None

    @property
    def steps(self) -> PartitionSpec:
        """Of an array [B, T, ...]."""
        return PartitionSpec(self.batch or None, self.time or None)

    @property
    def examples(self) -> PartitionSpec:
        """Of an array [B, ...]."""
        return PartitionSpec(self.batch or None)

    @property
    def axis(self) -> str | None:
        """The one axis that time is split over."""
        return self.time[0] if self.time else None

    def steps_apart(self, possible: bool) -> Place:
        """The same where it is possible, over one axis; else with all steps on each device."""
        return self if possible and len(self.time) == 1 else self._replace(time=())


_place: ContextVar[Place | None] = ContextVar("place", default=None)


@contextmanager
def devices(place: Place | None) -> Iterator[None]:
    """What is traced inside has batches at this place, where they can be split so."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


def here() -> Place | None:
    """The place that `devices` sets; None inside `jax.shard_map`."""
    return None if jax.sharding.get_abstract_mesh().manual_axes else _place.get()


def placed(x: Any) -> Place | None:
    """Where the batch x [B, T, ...] lies; None: on one device, or a part of it inside shard_map."""
    sharding: Any = getattr(jax.typeof(x), "sharding", None)
    if sharding is not None and sharding.mesh.explicit_axes:
        batch, time = (_names(axes) for axes in (*sharding.spec, None, None)[:2])
        mesh = sharding.mesh if _traced(x) else getattr(x.sharding, "mesh", sharding.mesh)
        return Place(mesh, batch, time) if batch or time else None
    if (place := here()) is None:
        return None
    batch, time = (
        axes if size and size % math.prod(place.mesh.shape[a] for a in axes) == 0 else ()
        for size, axes in zip(x.shape[:2], place[1:3], strict=True)
    )
    return Place(place.mesh, batch, time) if batch or time else None


def kept(x: Any) -> Any:
    """x [B, T, ...], held at the place that `devices` sets, in a program of several devices."""
    place = placed(x)
    if place is None or place.mesh.explicit_axes:
        return x
    return lax.with_sharding_constraint(x, NamedSharding(place.mesh, place.steps))


def _traced(x: Any) -> bool:
    return isinstance(x, Tracer)


def _names(axes: Any) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)


def apart(function: Callable[..., Any], place: Place, specs: Any, out: Any) -> Callable[..., Any]:
    """`function` of each device's part. specs: of its arguments, out: of what it returns, trees of
    `PartitionSpec`s or the beginnings of such; what they do not name is on every device whole."""
    explicit, sizes = bool(place.mesh.explicit_axes), dict(place.mesh.shape)
    # axes of one device too: a kernel wants to know of all that nothing is divided over them
    names = sizes if explicit else (*place.batch, *place.time, *(a for a in sizes if sizes[a] == 1))

    def run(*given: Any) -> Any:
        given = put(place.mesh, specs, given) if explicit else given
        return jax.shard_map(
            function,
            mesh=place.mesh,
            in_specs=specs,
            out_specs=out,
            axis_names=set(names),
            check_vma=False,  # within, everything is as on one device
        )(*given)

    return run


def put(mesh: Any, specs: Any, tree: Any) -> Any:
    """The same arrays with these shardings over explicit axes."""

    def one(spec: PartitionSpec, x: Any) -> Any:
        spec = PartitionSpec(*(spec[n] for n in range(min(len(spec), x.ndim))))
        if _traced(x) or isinstance(mesh, AbstractMesh):
            alone = jax.typeof(x).sharding.mesh.empty and not any(spec)
            return x if alone else jax.sharding.reshard(x, NamedSharding(mesh, spec))
        return jax.device_put(x, NamedSharding(mesh, spec))

    def all_of(spec: PartitionSpec, part: Any) -> Any:
        return jax.tree.map(lambda x: one(spec, x), part)

    return jax.tree.map(all_of, specs, tree, is_leaf=lambda s: isinstance(s, PartitionSpec))


# ---- inside shard_map ------------------------------------------------------------------------


def varying(x: Any) -> frozenset[str]:
    """The mesh axes that x is known to vary over, inside `jax.shard_map`."""
    kind = getattr(jax.typeof(x), "manual_axis_type", None)
    return frozenset() if kind is None else frozenset(kind.varying)


def vary(tree: Any, axes: frozenset[str]) -> Any:
    """The same numbers, of types that vary over these axes, too."""

    def cast(x: Any) -> Any:
        more = tuple(sorted(axes - varying(x)))
        return lax.pcast(x, more, to="varying") if more else x

    return jax.tree.map(cast, tree)


def alike(*trees: Any) -> Any:
    """All leaves, of types that vary over the axes that any of them varies over."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return trees
    return vary(trees, frozenset[str]().union(*map(varying, jax.tree.leaves(trees))))


def settled(step: Callable[..., Any], carry: Any, *given: Any) -> Any:
    """The carry in the type it has after any number of steps, step(carry, *given) -> carry."""
    while jax.sharding.get_abstract_mesh().manual_axes:  # a part may wait for what another takes
        after = jax.eval_shape(step, carry, *given)
        before = carry
        carry = jax.tree.map(lambda old, new: vary(old, varying(new)), carry, after)
        if all(map(_same, jax.tree.leaves(before), jax.tree.leaves(carry))):
            break
    return carry


def _same(a: Any, b: Any) -> bool:
    return varying(a) == varying(b)


def cond(wanted: Any, yes: Callable[..., Any], no: Callable[..., Any], *given: Any) -> Any:
    """`lax.cond`, also inside `jax.shard_map`."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return lax.cond(wanted, yes, no, *given)
    types = [jax.eval_shape(branch, *given) for branch in (yes, no)]

    def alike_branch(branch: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            return jax.tree.map(
                lambda y, a, b: vary(y, varying(a) | varying(b)), branch(*given), *types
            )

        return run

    return lax.cond(wanted, *map(alike_branch, (yes, no)), *given)


def loop(
    body: Callable[[C, Any], tuple[C, Any]], carry: C, xs: Any = None, **options: Any
) -> tuple[C, Any]:
    """`lax.scan`, also inside `jax.shard_map`."""

    def step(carry: Any, xs: Any) -> Any:
        return body(carry, jax.tree.map(lambda x: lax.index_in_dim(x, 0, keepdims=False), xs))[0]

    if all(len(x) for x in jax.tree.leaves(xs)):
        carry = settled(step, carry, xs)
    return lax.scan(body, carry, xs, **options)
