"""A layer whose batch lies on several devices: each runs its part of it as if it were alone."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx
from jax.sharding import PartitionSpec

from seqjax.core.mesh import Place, apart, devices, put


def on_devices(
    layer: Any, place: Place, x: Any, h: Any, *, parallel: bool, key: Any, source: Any,
    beside: dict[str, Any], **fixed: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """layer(x, h) of the batch x [B, T, features] at `place`.

    parallel: whether time may stay split; else each device gets all steps of its examples.
    key: of the whole batch, so that the noise does not depend on the devices. beside: what else has
    a batch axis. fixed: what has none.
    """
    if not parallel:
        place = place.whole()
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
