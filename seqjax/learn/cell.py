"""A cell: a recurrence as three pure functions of its parameters, and all a learner knows of it.

    h_0 = start(params)      h_t = step(params, h_{t-1}, x_t)      y_t = readout(params, h_t, x_t)

for one example and one time step. A user may write one by hand; `as_cell` makes one of any layer,
stack of layers or model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import Carry, Flow
from seqjax.core.mesh import loop
from seqjax.nn.base import Layer
from seqjax.nn.recurrent import Recurrent
from seqjax.stacks.model import Model

Params = Any
State = Any


class Cell(NamedTuple):
    """h_0 = start(params), h_t = step(params, h_{t-1}, x_t), y_t = readout(params, h_t, x_t).

    parts: of a stack the cells, whose parameters and states are tuples then.
    late: the state is that before the step, which the readout takes (`behind`).
    """

    start: Callable[[Params], State]
    step: Callable[[Params, State, Any], State]
    readout: Callable[[Params, State, Any], Any]
    parts: tuple[Cell, ...] = ()
    late: bool = False


def as_cell(module: Layer | Model) -> tuple[Cell, Params]:
    """The cell of a layer or a model, and its parameters (weights drawn once are not among them).

    A layer that defines `step` and `readout` gives those. Of any other one the state is (h, y): its
    output is a function of the state before and the input, so it is carried along; so it is of a
    model.
    """
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def merge(params):
        return nnx.merge(graph, params, rest)

    if isinstance(module, Recurrent):
        return _of_recurrent(merge), params
    if isinstance(module, Layer):
        if not module.causal:
            raise ValueError(f"{type(module).__name__} reads the future: it is no cell")
        return _of_layer(merge), params
    if isinstance(module, Model):
        cell = of_model(merge)
        return cell._replace(step=lambda params, h, x: cell.step(params, h, (x, {}))), params
    raise ValueError(f"as_cell takes a layer or a model, got {type(module).__name__}")


def _of_recurrent(merge) -> Cell:
    def step(params, h, x):
        layer = merge(params)
        z = jax.tree.map(lambda z: z[0], layer.driven(x[None], Flow()))
        return _like(h, layer.step(h, z))

    return Cell(
        lambda params: merge(params).start(),
        step,
        lambda params, h, x: merge(params).readout(h, x),
    )


def _of_layer(merge) -> Cell:
    def start(params):
        layer = merge(params)
        dtype = jnp.result_type(*(p for p in jax.tree.leaves(params)))
        return layer.start(), jnp.zeros(layer.out_features, dtype)

    def step(params, h, x):
        layer = merge(params)
        y, new = layer.example(x[None], Carry(h[0], _like(h[0], layer.start())), Flow())
        return _like(h, (new, y[0]))

    return Cell(start, step, lambda params, h, x: h[1])


def of_model(merge: Callable[[Params], Any]) -> Cell:
    """The cell of a model, of parameters that `merge` makes one of.

    Its inputs are pairs of x and of what goes beside it, {"resets": ..., "mask": ..., "dt": ...},
    of which any may be left out. Its state is (h, y).
    """

    def start(params):
        model = merge(params)
        return model.start(1), jnp.zeros(model.outputs.size, accumulation_dtype(model.compute))

    def step(params, h, x):
        y, new = _one_step(merge(params), h[0], x)
        return _like(h, (new, y.reshape(h[1].shape)))

    return Cell(start, step, lambda params, h, x: h[1])


def behind(merge: Callable[[Params], Any], xs: Any) -> Cell:
    """The same, a step behind: its state is that before a step and the input of the step.

    From these the output is read, so no output is a unit of the state, which each parameter would
    reach within a step and which reaches no other. It is for learners that carry on what reaches
    what. xs: inputs like those of `of_model`, [N, ...], of which none may leave out the mask.
    """

    def start(params):
        x, beside = jax.tree.map(lambda v: jnp.zeros(v.shape[1:], v.dtype), xs)
        return merge(params).start(1), (x, {**beside, "mask": jnp.zeros((), bool)})

    def step(params, h, x):
        return _like(h[0], _one_step(merge(params), *h)[1]), _like(h[1], x)

    def readout(params, h, x):
        return _one_step(merge(params), h[0], x)[0].reshape(-1)

    return Cell(start, step, readout, late=True)


def _one_step(model: Any, h: State, x: Any) -> tuple[jax.Array, State]:
    x, beside = jax.tree.map(lambda v: jnp.asarray(v)[None, None], x)
    return model(x, h, **beside)


def stack(*cells: Cell) -> Cell:
    """Cells on top of each other: each reads the output of the one below, at the same time step.

    Parameters and state are tuples, one entry per cell.
    """

    def start(params):
        return tuple(cell.start(p) for cell, p in zip(cells, params, strict=True))

    def run(params, h, x, new=None):
        states = []
        for n, (cell, p) in enumerate(zip(cells, params, strict=True)):
            state = cell.step(p, h[n], x) if new is None else new[n]
            states.append(state)
            x = cell.readout(p, state, x)
        return tuple(states), x

    return Cell(
        start,
        lambda params, h, x: run(params, h, x)[0],
        lambda params, h, x: run(params, None, x, new=h)[1],
        cells,
    )


def states(cell: Cell, params: Params, h: State, xs: Any) -> tuple[State, State]:
    """The state after every step of xs [T, ...], and the last one."""

    def body(h, x):
        h = cell.step(params, h, x)
        return h, h

    last, hs = loop(body, h, xs)
    return hs, last


def _like(old: State, new: State) -> State:
    """`new` in the dtypes of `old`: a state keeps its own."""
    return jax.tree.map(lambda o, n: jnp.asarray(n).astype(o.dtype), old, new)
