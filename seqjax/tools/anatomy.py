"""What a layer is made of, at its default options: parameters, state and work, without computing.

Shapes are enough: nothing is drawn and nothing runs, so that every row can be looked at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn import Layer
from seqjax.stacks.summary import flops, nbytes, parameters

STEPS = 128  # of the sequence whose work is counted


class Costs(NamedTuple):
    """Of one layer: what it stores, carries and computes."""

    features: int
    parameters: int
    state: str  # the floats of a state, an expression over its options
    state_bytes: int  # of one example
    flops_per_token: float  # of the outputs of STEPS steps, as `seqjax.stacks.summary.flops` counts


def costs_of(layer: Layer, state: str) -> Costs:
    graph, arrays = nnx.split(layer)

    def outputs(arrays: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, arrays)(x)[0]

    x = jax.ShapeDtypeStruct((1, STEPS, layer.features), jnp.float32)
    work = flops(jax.make_jaxpr(outputs)(arrays, x).jaxpr) / STEPS
    carried = nbytes(jax.eval_shape(lambda arrays: nnx.merge(graph, arrays).batch_state(1), arrays))
    return Costs(layer.features, parameters(layer), state, carried, round(work, 1))
