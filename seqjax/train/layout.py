"""Training on a mesh of devices: where parameters, states and batches lie.

The axes of arrays have names, and each name is split over axes of the mesh (`RULES`):

    batch        data, fsdp    examples
    time         sequence      steps: what each piece of them does to a state is exchanged
    features     fsdp          of parameters, the axis as wide as the stream; gathered where used
    hidden       tensor        of parameters, the widest of their other axes
    vocabulary   tensor        of an embedding, its rows

An axis that its devices do not divide stays whole. `jax.jit` with these shardings is all there is:
the step is written for one device, and a layer runs on each device's part of the batch as it would
alone (`seqjax.core.mesh.apart`). What parameters of one name have, their gradients, moments and
averages have, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from jax import lax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from seqjax.core.common import unknown
from seqjax.core.mesh import Place, devices
from seqjax.stacks.model import BATCH_AXES

if TYPE_CHECKING:
    from seqjax.train.config import Config, MeshConfig

AXES = ("data", "fsdp", "tensor", "sequence")
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "time": ("sequence",),
    "features": ("fsdp",),
    "hidden": ("tensor",),
    "vocabulary": ("tensor",),
}


def axes_of(name: str, shape: tuple[int, ...], features: int) -> tuple[str | None, ...]:
    """The names of a parameter's axes, None where an axis has none.

    name: as in a checkpoint; the parameters of repeated blocks have the repetitions first.
    features: the width of the stream.

    >>> axes_of("blocks.0.layer.W.kernel", (6, 64, 192), 64)
    (None, 'features', 'hidden')
    >>> axes_of("embed.table", (1000, 64), 64)
    ('vocabulary', 'features')
    """
    own = range(1 if name.startswith("blocks.") else 0, len(shape))
    found: list[str | None] = [None] * len(shape)
    if len(own) < 2:  # vectors are small
        return tuple(found)
    stream = next((n for n in own if shape[n] == features), None)
    if stream is not None:
        found[stream] = "features"
    rest = [n for n in own if n != stream]
    widest = max(rest, key=lambda n: shape[n])
    found[widest] = "vocabulary" if name.endswith("embed.table") else "hidden"
    return tuple(found)


@dataclass(frozen=True)
class Layout:
    """Of a run; `mesh` None: on one device, where all of this does nothing."""

    mesh: Mesh | None
    rules: Mapping[str, tuple[str, ...]]
    features: int

    @classmethod
    def of(cls, config: Config) -> Layout:
        """Raises ValueError for more devices than there are, and for rules of no axis."""
        rules, mesh = rules_of(config.mesh), None
        sizes = [getattr(config.mesh, name) for name in AXES]
        if (count := math.prod(sizes)) > 1:
            if count > jax.device_count():
                axes = ", ".join(f"{n}={size}" for n, size in zip(AXES, sizes, strict=True))
                raise ValueError(
                    f"mesh {axes} takes {count} devices, and there are {jax.device_count()}"
                )
            kinds = (AxisType.Auto,) * len(AXES)
            mesh = jax.make_mesh(sizes, AXES, kinds, devices=jax.devices()[:count])
        return cls(mesh, rules, config.model.features)

    @property
    def place(self) -> Place | None:
        """Where a batch lies."""
        if self.mesh is None:
            return None
        split = ({*self.rules[name]} for name in ("batch", "time"))
        batch, time = (tuple(a for a in AXES if a in s and self.mesh.shape[a] > 1) for s in split)

        def used(name: str, shape: tuple[int, ...]) -> PartitionSpec:
            axes = axes_of(name, shape, self.features)
            return self._spec(axes, shape, but={*batch, *time}).spec

        return Place(self.mesh, batch, time, used)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What is traced inside has its batches there."""
        with devices(self.place):
            yield

    def _spec(
        self, axes: tuple[str | None, ...], shape: tuple[int, ...], but: Iterable[str] = ()
    ) -> NamedSharding:
        assert self.mesh is not None
        taken, spec = {*but}, []
        for name, size in zip(axes, shape, strict=True):
            over = () if name is None else self.rules[name]
            over = tuple(a for a in over if a not in taken and self.mesh.shape[a] > 1)
            over = over if size and size % math.prod(self.mesh.shape[a] for a in over) == 0 else ()
            taken |= {*over}
            spec.append(over or None)
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def state(self, state: Any) -> Any:
        """The shardings of a `TrainState`: of each array one, in its structure."""
        widths = {name: leaf.shape for name, leaf in {**state.params, **state.frozen}.items()}

        def one(path: Any, leaf: Any) -> NamedSharding:
            name = getattr(path[-1], "key", None)
            axes: tuple[str | None, ...] = (None,) * leaf.ndim
            if widths.get(name) == leaf.shape:
                axes = axes_of(str(name), leaf.shape, self.features)
            return self._spec(axes, leaf.shape)

        def example(axis: int, part: Any) -> Any:
            def one(leaf: Any) -> NamedSharding:
                axes = tuple("batch" if n == axis else None for n in range(leaf.ndim))
                return self._spec(axes, leaf.shape)

            return jax.tree.map(one, part)

        found = jax.tree_util.tree_map_with_path(one, state)
        if state.carry is None or state.learner is not None:
            return found
        return found._replace(carry=jax.tree.map(example, BATCH_AXES, state.carry))

    def put(self, state: Any) -> Any:
        """The same `TrainState` on its devices, or, while a step is traced, kept there."""
        if self.mesh is None:
            return state
        return _to(state, self.state(state))

    def batch(self, batch: Any) -> Any:
        """The same batch on its devices: [B, T, ...] over both axes where they divide it."""
        if self.mesh is None:
            return batch
        steps = batch.mask.shape

        def one(leaf: Any) -> NamedSharding:
            axes = ("batch", "time") if leaf.shape[:2] == steps else ("batch",)
            axes = (*axes, *(None,) * leaf.ndim)[: leaf.ndim]
            return self._spec(axes, leaf.shape)

        return _to(batch, jax.tree.map(one, batch))


ONE_DEVICE = Layout(None, RULES, 0)


def _to(tree: Any, shardings: Any) -> Any:
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))
    return (lax.with_sharding_constraint if traced else jax.device_put)(tree, shardings)


def rules_of(config: MeshConfig) -> dict[str, tuple[str, ...]]:
    """`RULES` and those of the config. Raises ValueError for what is no axis."""
    rules = dict(RULES)
    for name, axes in config.rules.items():
        if name not in RULES:
            raise ValueError(unknown("mesh.rules: axis", name, RULES))
        axes = () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)
        for axis in axes:
            if axis not in AXES:
                raise ValueError(unknown(f"mesh.rules: {name}: mesh axis", axis, AXES))
        rules[name] = axes
    return rules
