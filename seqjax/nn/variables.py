"""Variables of layers: their kinds, and the dtypes they are used in."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.core.common import accumulation_dtype

Module = TypeVar("Module", bound=nnx.Module)


class Precise(nnx.Param):
    """A parameter that is never cast below float32: decays, time steps, gate biases."""


class Orthogonal(Precise):
    """A matrix with Q^T Q = I, which the updates of training turn and never add to."""


class Frozen(nnx.Variable):
    """A weight that is drawn once and not trained, such as a reservoir's."""


class Group(NamedTuple):
    """How a paper trains a parameter of its layer: its share of the learning rate, its decay."""

    rate: float
    decay: float | None = None  # weight decay; None: as that of other parameters


def cast_parameters(module: Module, dtype) -> Module:
    """The module with its weights in `dtype`; `Precise`, `Frozen` ones stay at least float32."""
    high = accumulation_dtype(dtype)

    def one(variable):
        if not isinstance(variable, (nnx.Param, Frozen)):
            return variable
        to = high if isinstance(variable, (Precise, Frozen)) else dtype
        return variable.replace(cast(variable.get_value(), to))

    graph, state = nnx.split(module)
    state = jax.tree.map(one, state, is_leaf=lambda v: isinstance(v, nnx.Variable))
    return nnx.merge(graph, state)


def promotion(dtype):
    """With 16-bit inputs what meets the float32 state or a `Precise` parameter becomes float32."""
    low = jnp.finfo(dtype).bits < 32
    return jax.numpy_dtype_promotion("standard") if low else nullcontext()


def cast(tree, dtype):
    """Floating leaves in `dtype`, complex ones in its complex counterpart, others untouched."""
    wide = accumulation_dtype(dtype, jnp.complex64)

    def leaf(x):
        x = jnp.asarray(x)
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            return x.astype(wide)
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(leaf, tree)


def to_real(tree):
    """What can be learned of a state: complex leaves as stacks [2, ...] of real and imaginary part
    (optimisers see real arrays), integer ones left out."""

    def leaf(x):
        if jnp.iscomplexobj(x):
            return jnp.stack([x.real, x.imag])
        return x if jnp.issubdtype(x.dtype, jnp.floating) else None

    return jax.tree.map(leaf, tree)


def from_real(like, tree):
    def leaf(s, x):
        return s if x is None else lax.complex(x[0], x[1]) if jnp.iscomplexobj(s) else x

    return jax.tree.map(leaf, like, tree)
