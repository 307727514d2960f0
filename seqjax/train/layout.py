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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from seqjax.core.common import unknown
from seqjax.core.mesh import Place, devices
from seqjax.stacks.model import BATCH_AXES, Model

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
    def of(cls, config: Config, devices: Sequence[Any] | None = None) -> Layout:
        """devices: in place of those of this machine, of a topology that is planned for.

        Raises ValueError for more devices than there are, and for rules of no axis.
        """
        rules, mesh = rules_of(config.mesh), None
        sizes = [getattr(config.mesh, name) for name in AXES]
        planned, devices = devices is not None, jax.devices() if devices is None else devices
        several = jax.process_count() > 1 and not planned
        if (count := math.prod(sizes)) > 1 or several or planned:
            axes = ", ".join(f"{n}={size}" for n, size in zip(AXES, sizes, strict=True))
            if count > len(devices) or (several and count < len(devices)):
                there = f"there are {len(devices)}"
                if several:
                    there = f"{jax.process_count()} processes have {len(devices)}"
                raise ValueError(f"mesh {axes} takes {count} devices, and {there}")
            kinds = (AxisType.Auto,) * len(AXES)
            try:
                mesh = jax.make_mesh(sizes, AXES, kinds, devices=devices[:count])
            except NotImplementedError as error:  # of TPUs
                raise ValueError(
                    f"mesh {axes} does not lie along the links of these chips: the size of each of "
                    "its axes must be the product of some of theirs"
                ) from error
        return cls(mesh, rules, config.model.features)

    @property
    def platform(self) -> str:
        """Of its devices, which need not be those of this machine."""
        return jax.default_backend() if self.mesh is None else self.mesh.devices.flat[0].platform

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

    def arrays(self, arrays: Mapping[str, Any]) -> dict[str, NamedSharding]:
        """The shardings of parameters, by name."""
        found = {name: axes_of(name, x.shape, self.features) for name, x in arrays.items()}
        return {name: self._spec(found[name], x.shape) for name, x in arrays.items()}

    def made(self, make: Callable[..., Any], *given: Any) -> Any:
        """make(*given), a `TrainState` or a pair of arrays by name, of which no device is given the
        whole at any time."""
        if self.mesh is None:
            return make(*given)
        shapes = jax.eval_shape(make, *given)
        whole = hasattr(shapes, "params")
        to = self.state(shapes) if whole else tuple(map(self.arrays, shapes))
        return jax.jit(make, out_shardings=to)(*given)

    def put(self, state: Any) -> Any:
        """The same `TrainState` on its devices, or, while a step is traced, kept there."""
        if self.mesh is None:
            return state
        return _to(state, self.state(state))

    def rows(self, batch: int) -> range:
        """Those of the examples of a batch that this process has devices for."""
        if self.mesh is None:
            return range(batch)
        where = self._spec(("batch",), (batch,)).addressable_devices_indices_map((batch,))
        found = [part[0].indices(batch) for part in where.values() if part]
        return range(min(start for start, *_ in found), max(stop for _, stop, _ in found))

    def shapes(self, state: Any, batch: Any) -> tuple[Any, Any]:
        """A `TrainState` and a batch without numbers, where they lie."""
        if self.mesh is None:
            return state, batch

        def one(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

        shardings = self.state(state), self._batch(batch)
        return jax.tree.map(one, (state, batch), shardings)

    def batch(self, batch: Any, of: int | None = None) -> Any:
        """The same batch on its devices: [B, T, ...] over both axes where they divide it.

        of: B, where each process has only its `rows(B)`.
        """
        if self.mesh is None:
            return batch
        shardings = self._batch(batch, of)
        if of is None:
            return _to(batch, shardings)
        first = self.rows(of).start
        return jax.tree.map(lambda leaf, s: _from_rows(leaf, s, first, of), batch, shardings)

    def _batch(self, batch: Any, of: int | None = None) -> Any:
        """The shardings of its arrays."""
        steps = batch.mask.shape

        def one(leaf: Any) -> NamedSharding:
            axes = ("batch", "time") if leaf.shape[:2] == steps else ("batch",)
            axes = (*axes, *(None,) * leaf.ndim)[: leaf.ndim]
            return self._spec(axes, (of or leaf.shape[0], *leaf.shape[1:]))

        return jax.tree.map(one, batch)

    def gather(self, share: float, word: float) -> Any:
        """What a step is given beside its batch: `share` of this process, and of several also its
        word for the others."""
        if jax.process_count() == 1:
            return np.float32(share)
        assert self.mesh is not None
        own = np.array([[share, word]], np.float32)
        sharding = NamedSharding(self.mesh, PartitionSpec(AXES))
        return jax.make_array_from_callback((self.mesh.size, 2), sharding, lambda _: own)

    def agreed(self, given: Any) -> tuple[Any, dict[str, Any]]:
        """Inside the step: the largest share; of several processes also what all of them hear."""
        if not given.ndim:
            return given, {}
        share, word = jnp.max(given, axis=0)
        return share, {"share": share, "word": word}


ONE_DEVICE = Layout(None, RULES, 0)


def spread(model: Model, mesh: MeshConfig) -> Model:
    """A model with its parameters on the devices of a mesh."""
    from seqjax.stacks.config import ModelConfig
    from seqjax.train.config import Config

    layout = Layout.of(Config(model=ModelConfig(features=model.features), mesh=mesh))
    if layout.mesh is None:
        return model
    graph, state = nnx.split(model)
    found = {".".join(map(str, path)): (path, v) for path, v in nnx.to_flat_state(state)}
    arrays = {name: variable.get_value() for name, (_, variable) in found.items()}
    arrays = _to(arrays, layout.arrays(arrays))
    pairs = [(path, v.replace(arrays[name])) for name, (path, v) in found.items()]
    return nnx.merge(graph, nnx.from_flat_state(pairs))


def placed(own: Any, like: Any) -> jax.Array:
    """A copy of an array that each process has whole, where `like` lies."""
    if len(getattr(like, "devices", set)()) < 2:
        return jnp.array(own)
    if jax.process_count() > 1:
        return _from_rows(own, like.sharding, 0, None)
    return jax.device_put(own, like.sharding, may_alias=False)


def _to(tree: Any, shardings: Any) -> Any:
    leaves = jax.tree.leaves(tree)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return lax.with_sharding_constraint(tree, shardings)
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    return jax.tree.map(_placed, tree, shardings)


def _placed(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """An array that each process has whole, on the devices of all: each fills its own."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf  # it is there
    return _from_rows(leaf, sharding, 0, None)


def _from_rows(leaf: Any, sharding: NamedSharding, first: int, of: int | None) -> jax.Array:
    """An array of `of` rows, of which each process has those from `first` on."""
    own = np.asarray(leaf)
    shape = own.shape if of is None else (of, *own.shape[1:])

    def part(index: Any) -> np.ndarray:
        if of is None:
            return np.array(own[index])
        start, stop, _ = index[0].indices(of)
        return own[(slice(start - first, stop - first), *index[1:])]

    return jax.make_array_from_callback(shape, sharding, part)


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
