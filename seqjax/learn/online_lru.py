"""Online learning of stacked recurrences (Zucchet et al. 2023, arXiv:2305.15947).

    M^l_t = J^l_t M^l_{t-1} + I^l_t           per layer l, its own state by its own parameters
    dL/dtheta^l = sum_t delta^l_t M^l_t       delta^l_t = dl_t/dh^l_t by backpropagation in space

delta is the error of this very time step, passed down the layers but not back in time.
For one recurrent layer that is RTRL. For several it leaves out how a lower layer's parameters
reached the loss through the past states of a layer above: the paper's approximation.

The layers are cells (`seqjax.learn.cell.stack` puts them on top of each other); a layer without a
state, such as a readout, has a cell whose state is (). With element-wise recurrences, for which it
was made, a step costs O(P) time and memory, and all traces of a window are one associative scan
(`mode="scan"`: parallel in time, T times the memory). Any other cell works at its own price.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from seqjax.core.mesh import loop
from seqjax.learn.cell import Cell, Params, State, stack
from seqjax.learn.influence import Influence, from_vector, influence, to_vector
from seqjax.learn.learner import Learner, Loss, summed
from seqjax.nn.base import option

MODES = ("online", "scan")


class OnlineState(NamedTuple):
    h: tuple[State, ...]  # of every layer
    M: tuple[Array, ...]  # traces of every layer


def online_lru(cell: Cell, loss: Loss, params: Params, xs: Any, *, mode: str = "online") -> Learner:
    """Traces within every layer of a stack, errors in space; xs [N, ...] are inputs of the lowest.

    A cell that is no stack is one layer, and its gradient exact.
    mode: "online": step after step; "scan": the traces of a window as one scan.
    """
    option("mode of online_lru", mode, MODES)
    if not cell.parts:
        return _single(online_lru(stack(cell), loss, (params,), xs, mode=mode))
    cells = cell.parts
    kept: list[Influence] = []
    for cell, p in zip(cells, params, strict=True):
        kept.append(influence(cell, p, xs))
        xs = jax.vmap(lambda x, cell=cell, p=p: cell.readout(p, cell.start(p), x))(xs)

    def init(params, key: Any = None) -> OnlineState:
        del key
        h = tuple(cell.start(p) for cell, p in zip(cells, params, strict=True))
        return OnlineState(h, tuple(k.init(p) for k, p in zip(kept, params, strict=True)))

    def step(params, h, x):
        """States after the step, what each layer read, and the output of the last one."""
        states, read = [], []
        for cell, p, state in zip(cells, params, h, strict=True):
            read.append(x)
            states.append(cell.step(p, state, x))
            x = cell.readout(p, states[-1], x)
        return tuple(states), tuple(read), x

    def errors(params, h, x, target):
        """l_t; its gradient by this step alone; its credits dl_t/dh^l_{t-1}."""

        def objective(params, vs):
            before = tuple(from_vector(s, v) for s, v in zip(h, vs, strict=True))
            after, read, y = step(params, before, x)
            return loss(y, target), (after, read)

        vs = tuple(to_vector(s) for s in h)
        (value, seen), (direct, credits) = jax.value_and_grad(objective, (0, 1), has_aux=True)(
            params, vs
        )
        return value, direct, credits, *seen

    def pulled(params, credits, M):
        return tuple(
            ravel_pytree(p)[1](k.pull(credit, m))
            for p, k, credit, m in zip(params, kept, credits, M, strict=True)
        )

    def online(params, state, x, y):
        h, M = state
        value, direct, credits, after, read = errors(params, h, x, y)
        past = pulled(params, credits, M)
        M = tuple(
            k.push(p, s, x, m) for k, p, s, x, m in zip(kept, params, h, read, M, strict=True)
        )
        return value, jax.tree.map(jnp.add, direct, past), OnlineState(after, M)

    def parallel(params, state, xs, ys):
        def run(h, now):
            value, direct, credits, after, read = errors(params, h, *now)
            return after, (value, direct, credits, h, read)

        last, (values, direct, credits, before, read) = loop(run, state.h, (xs, ys))
        grads, M = [], []
        for k, p, g, credit, h, x, m in zip(
            kept, params, direct, credits, before, read, state.M, strict=True
        ):
            traces, end = k.along(p, h, x, m)
            past = jnp.sum(jax.vmap(k.pull)(credit, traces), axis=0)
            summed = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), g)
            grads.append(jax.tree.map(jnp.add, summed, ravel_pytree(p)[1](past)))
            M.append(end)
        return jnp.sum(values), tuple(grads), OnlineState(last, tuple(M))

    return Learner(init, parallel if mode == "scan" else summed(online))


def _single(learner: Learner) -> Learner:
    """Of parameters p in place of (p,)."""

    def grad(params, state, xs, ys):
        value, (grads,), state = learner.grad((params,), state, xs, ys)
        return value, grads, state

    return Learner(lambda params, key=None: learner.init((params,), key), grad)
