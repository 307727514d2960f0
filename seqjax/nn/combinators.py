"""Layers made of layers: no state is carried by hand.

    Chain(nnx.Linear(3, 16, rngs=rngs), gru, jax.nn.gelu, Residual(lru))    y = f_n(... f_1(x))
    Parallel(mamba, attention)                        y = [f_1(x), ..., f_n(x)], or their sum
    Residual(gru)                                     y = x + f(x)

A part is a layer, or a module or function of one array that treats steps alike: the projections,
norms and activations of `flax.nnx`. What comes out is a layer. Its state is the tuple of those of
the layers inside, and resets, masks, evaluators, noise, irregular time, streams and learned states
reach each of them. `Outputs` makes it a module of one array, for `nnx.Sequential`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry, Flow
from seqjax.nn.base import Layer, option

Part = Layer | nnx.Module | Callable[[Array], Array]
JOINS = ("concatenate", "sum")


class Combined(Layer):
    """A layer made of `modules`, of which those that are layers have states."""

    sequence_parallel = True  # where the layers inside are

    def made_of(self, modules: tuple[Part, ...], features: int | None) -> None:
        name = type(self).__name__
        if not modules or not all(map(callable, modules)):
            raise TypeError(f"{name} is made of layers, modules and functions, got {modules}")
        self.modules = nnx.List([m if isinstance(m, nnx.Module) else Plain(m) for m in modules])
        known = (getattr(modules[0], width, None) for width in ("features", "in_features"))
        found = features or next(filter(None, known), None)
        if found is None:
            raise ValueError(f"{name} must be given features=: its first part does not define them")
        self.features = found
        self.causal = all(layer.causal for layer in self.parts())

    def parts(self):
        return tuple(module for module in self.modules if isinstance(module, Layer))

    def through(self, n: int, x: Array, states: Iterator[Carry], ends: list, flow: Flow) -> Array:
        """What the n-th module makes of x [T, ...]; a layer takes its state, and leaves its end."""
        module = self.modules[n]
        if not isinstance(module, Layer):
            return module(x)
        y, end = module.example(x, next(states), flow.part(n).of(module.evaluators))
        ends.append(end)
        return y


class Plain(nnx.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Array], Array]):
        self.function = function

    def __call__(self, x: Array) -> Array:
        return self.function(x)


class Chain(Combined):
    """y = f_n(... f_1(x)). features: of x, where the first part does not define them.

    Raises ValueError where a layer takes another width than comes to it.
    """

    def __init__(self, *modules: Part, features: int | None = None):
        self.made_of(modules, features)
        width = self.features
        for module in self.modules:
            width = width_after("Chain", module, width)
        self.out_features = width

    def run(self, x, h, flow):
        states, ends = iter(h), []
        for n in range(len(self.modules)):
            x = self.through(n, x, states, ends, flow)
        return x, tuple(ends)


class Parallel(Combined):
    """y = [f_1(x), ..., f_n(x)] along the features or, with join="sum", f_1(x) + ... + f_n(x).

    Raises ValueError where widths differ that must not.
    """

    def __init__(self, *modules: Part, join: str = "concatenate", features: int | None = None):
        self.made_of(modules, features)
        self.join = option("join of Parallel", join, JOINS)
        widths = [width_after("Parallel", module, self.features) for module in self.modules]
        if join == "sum" and len(set(widths)) > 1:
            raise ValueError(f"Parallel sums outputs of one width, got {widths}")
        self.out_features = widths[0] if join == "sum" else sum(widths)

    def run(self, x, h, flow):
        states, ends = iter(h), []
        ys = [self.through(n, x, states, ends, flow) for n in range(len(self.modules))]
        y = sum(ys[1:], ys[0]) if self.join == "sum" else jnp.concatenate(ys, axis=1)
        return y, tuple(ends)


class Residual(Combined):
    """y = x + f(x). Raises ValueError where f changes the width."""

    def __init__(self, module: Part, *, features: int | None = None):
        self.made_of((module,), features)
        self.out_features = width_after("Residual", self.modules[0], self.features)
        if self.out_features != self.features:
            raise ValueError(
                f"Residual keeps the width: its part maps {self.features} features to "
                f"{self.out_features}"
            )

    def run(self, x, h, flow):
        ends: list[Any] = []
        return x + self.through(0, x, iter(h), ends, flow), tuple(ends)


def width_after(name: str, module: Any, width: int) -> int:
    """How many features a module returns of so many."""
    if isinstance(module, Layer):
        if module.features != width:
            kind = type(module).__name__
            raise ValueError(f"{name}: {kind} takes {module.features} features, got {width}")
        return module.out_features
    try:
        with jax.numpy_dtype_promotion("standard"):  # parameters may be in float64
            return jax.eval_shape(module, jax.ShapeDtypeStruct((1, width), jnp.float32)).shape[1]
    except (TypeError, ValueError, IndexError) as error:
        kind = type(module).__name__
        raise ValueError(f"{name}: {kind} does not take {width} features: {error}") from None
