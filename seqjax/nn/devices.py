"""Layers whose batch lies on several devices: each runs its part of it as if it were alone."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from seqjax.core.mesh import Place, apart, devices, here, put
from seqjax.nn.arguments import undivided

M = TypeVar("M", bound=nnx.Module)


def on_devices(
    layer: Any, place: Place, x: Any, h: Any, reverse: bool, divides: bool, *,
    beside: dict[str, Any], key: Any, source: Any, every: int | None, evaluator: str | None,
) -> tuple[Any, Any]:  # fmt: skip
    """layer(x, h) of the batch x [B, T, features] at `place`.

    Where time cannot stay split, each device gets all steps of its examples. key: of the whole
    batch, so that the noise does not depend on the devices. beside: what else has a batch axis.
    """
    why = undivided(x, divides, **beside, every=every, key=None)
    place = place.steps_apart(why is None)
    fixed: dict[str, Any] = dict(every=every, evaluator=evaluator, reverse=reverse)
    if not place.batch and not place.time and not place.mesh.explicit_axes:
        with devices(None):
            return layer(x, h, key=key, source=source, **beside, **fixed)
    if key is not None and not key.ndim:
        key = jax.random.split(key, x.shape[:2])
    graph, state = nnx.split(layer)

    def part(state: Any, x: Any, h: Any, key: Any, source: Any, beside: dict[str, Any]) -> Any:
        made = nnx.merge(graph, state)
        return made(x, h, key=key, source=source, **beside, **fixed, axis=place.axis)

    alone, steps, examples = PartitionSpec(), place.steps, place.examples
    of = {name: examples if name == "cu_seqlens" else steps for name in beside}
    specs = (alone, steps, examples, steps, examples, of)
    y, h = apart(part, place, specs, (steps, examples))(state, x, h, key, source, beside)
    if place.mesh.explicit_axes:  # as x, so that they can be added
        spec = jax.typeof(x).sharding.spec
        y = put(place.mesh, spec if y.shape == x.shape else PartitionSpec(*spec[:2]), y)
    return y, h


def gathered(module: M, but: str = "") -> M:
    """The module with its parameters as they are used, not as they are kept: each device has all
    that its part of a batch meets. but: an attribute that is left as it is."""
    place = here()
    of = None if place is None else place.parameter
    if place is None or of is None:
        return module
    graph, state = nnx.split(module)

    def used(path: Any, variable: Any) -> Any:
        if path[0] == but:
            return variable
        x = variable.get_value()
        spec = of(".".join(map(str, path)), x.shape)
        return variable.replace(
            jax.lax.with_sharding_constraint(x, NamedSharding(place.mesh, spec))
        )

    flat = [(path, used(path, variable)) for path, variable in nnx.to_flat_state(state)]
    return nnx.merge(graph, nnx.from_flat_state(flat))
