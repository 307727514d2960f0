"""Where the decoder of a pair looked: a map of the source for each of its layers that does."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.answers import Paired
from seqjax.core.flow import Source
from seqjax.core.mesh import loop
from seqjax.nn.base import cast_parameters
from seqjax.stacks.model import Model


def alignments(model: Model, x: Paired) -> Array:
    """alpha [layers, B, T, S]: what each step of the target took of each step of the source.

    Of the layers that look at a source in their own step and have a method `alignment`, from the
    first to the last. The target is read step by step: from the states before and after one, and
    the source, it is known where it looked. Raises ValueError for a model without such a layer.
    """
    if not any(map(_looks, (*model.blocks, *model.tail))):
        raise ValueError("none of its layers looks at a source in its own step")
    return _alignments(cast_parameters(model, model.compute), x)


@jax.jit
def _alignments(model: Model, x: Paired) -> Array:
    _, h = model(x._replace(target=x.target[:, :0]))

    def step(h: Any, now: Array) -> Any:
        new = model(now[:, None], h)[1]
        repeated = [
            _of_block(nnx.split(block.layer), before, after, h.source)
            for block, before, after in zip(model.blocks, h.blocks, new.blocks, strict=True)
            if _looks(block)
        ]
        maps = [jnp.stack(repeated, axis=1).reshape(-1, *repeated[0].shape[1:])] if repeated else []
        for block, before, after in zip(model.tail, h.tail, new.tail, strict=True):
            if _looks(block):
                graph, parameters = nnx.split(block.layer)
                once = jax.tree.map(lambda v: v[None], (parameters, before, after))
                maps.append(_of_block((graph, once[0]), once[1], once[2], h.source))
        return new, jnp.concatenate(maps)

    return jnp.moveaxis(loop(step, h, jnp.swapaxes(x.target, 0, 1))[1], 0, 2)


def _of_block(layer: Any, before: Any, after: Any, source: Source) -> Array:
    """[repetitions, B, S] of a layer whose parameters and states have that axis."""
    graph, parameters = layer

    def one(parameters: Any, before: Any, after: Any) -> Array:
        return jax.vmap(nnx.merge(graph, parameters).alignment)(before, after, source)

    return jax.vmap(one)(parameters, before, after)


def _looks(block: Any) -> bool:
    return hasattr(block.layer, "alignment")
