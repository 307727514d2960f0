"""Lifted learning: the states v_t are variables beside theta, and the recurrence is a constraint.

    min over theta, v    sum_t l(readout(theta, v_t), y_t)
    such that            r_t = v_t - step(theta, v_{t-1}, x_t) = 0,      v_0 = h_0      survey 6.2

    L(theta, v, lambda) = sum_t l_t + <lambda_t, r_t> + mu/2 |r_t|^2

Every term of L looks at one step, so the steps are taken all at once, whatever their number. Each
rule moves v (and lambda) for given parameters, then returns dL/dtheta for an optimiser:

    lifted_penalty      lambda = 0; v descends L; mu grows by `growth` a window
                        (method of auxiliary coordinates, arXiv:1212.5921)
    lifted_admm         v descends L, then lambda_t += mu r_t, in turns   (after arXiv:1605.02026)
    lifted_bcd          lambda = 0; v_T, ..., v_1 are minimised one after the other, the others
                        held: block coordinate descent                   (after arXiv:1805.01532)
    local_propagation   v descends and lambda ascends at once, to the saddle point
                        (Marra et al. 2020, IJCNN)

Where v minimises L, -dL/dtheta through step is the BPTT gradient in which lambda_t + mu r_t stands
for the credit -dL/dh_t: with multipliers it is that of backpropagation as soon as r = 0; without,
as mu grows, to O(1/mu).

`steps` None is for streams: a window begins with the states that the cell goes through, and with
lambda = 0. With `steps` the learner is of one example of so many steps, seen again and again: v and
lambda are its state and go on with the next visit, as in the papers; `batched` has those of many.

Departures. The papers solve for weights by least squares, and for v in closed form, where layers
are affine maps with an activation by entries; a cell is any function, so v takes gradient steps of
rate / mu (in `lifted_bcd` a Newton step that leaves out the curvature of `step`: the minimum of the
block, where the cell is linear), and weights are the optimiser's. 1605.02026 has a multiplier at
the last layer only, and 1805.01532 puts the constraint before the ReLU, with v >= 0. Of the
constraints of Marra et al. ours is the hard one; those that are soft by epsilon are left out.

n units of state, T steps of a window: time O(cost(step)) an iteration and step (lifted_bcd: n of
them and n^3 a sweep), memory O(T n).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from seqjax.core.mesh import loop
from seqjax.learn.cell import Cell, Params, State, states
from seqjax.learn.influence import from_vector, to_vector
from seqjax.learn.learner import Learner, Loss


class Window(NamedTuple):
    """A cell over one window: vs [T, n] stand for the states that it goes through."""

    cell: Cell
    loss: Loss
    h: State  # before the first step
    hs: State  # the cell's own states [T, ...]: of integer parts of a state the values
    xs: Any
    ys: Any

    @staticmethod
    def of(cell: Cell, loss: Loss, params: Params, h: State, xs: Any, ys: Any):
        """The window, the cell's own states as vs, and the last of them."""
        hs, last = states(cell, params, h, xs)
        return Window(cell, loss, h, hs, xs, ys), jax.vmap(to_vector)(hs), last

    def predicted(self, params: Params, vs: Array) -> Array:
        """step(theta, v_{t-1}, x_t) of every step, [T, n]."""
        like = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b[:-1]]), self.h, self.hs)
        before = jnp.concatenate([to_vector(self.h)[None].astype(vs.dtype), vs[:-1]])

        def one(h, v, x):
            return to_vector(self.cell.step(params, from_vector(h, v), x))

        return jax.vmap(one)(like, before, self.xs)

    def losses(self, params: Params, vs: Array) -> Array:
        """l(readout(theta, v_t), y_t), summed."""

        def one(h, v, x, y):
            return self.loss(self.cell.readout(params, from_vector(h, v), x), y)

        return jnp.sum(jax.vmap(one)(self.hs, vs, self.xs, self.ys))

    def lagrangian(
        self, params: Params, vs: Array, duals: Array | float, weight: Array | float
    ) -> Array:
        """sum_t l_t + <lambda_t, r_t> + mu/2 |r_t|^2."""
        r = vs - self.predicted(params, vs)
        bound = jnp.sum(duals * r) + weight / 2 * jnp.sum(jnp.square(r))
        return self.losses(params, vs) + bound


class LiftedState(NamedTuple):
    h: State  # before the next window
    visits: Array  # int32: windows so far
    vs: Any  # [steps, n] of the example; None for a stream
    duals: Any


# (window, params, vs, lambda, mu) -> (vs, lambda), both [T, n]
Visit = Callable[[Window, Params, Array, Array, Array], tuple[Array, Array]]


def _lifted(
    cell: Cell,
    loss: Loss,
    visit: Visit,
    steps: int | None,
    weight: float,
    growth: float = 1.0,
    **positive: float,
) -> Learner:
    for name, value in {"weight": weight, "growth": growth, **positive}.items():
        if value <= 0:
            raise ValueError(f"{name} must be > 0, got {value}")
    if steps is not None and steps < 1:
        raise ValueError(f"steps are those of an example, >= 1, or None; got {steps}")

    def init(params: Params, key: Any = None) -> LiftedState:
        del key
        h, visits = cell.start(params), jnp.zeros((), jnp.int32)
        if steps is None:
            return LiftedState(h, visits, None, None)
        none = jnp.zeros((steps, len(to_vector(h))), to_vector(h).dtype)
        return LiftedState(h, visits, none, none)

    def grad(params, state, xs, ys):
        h = state.h if steps is None else cell.start(params)
        window, own, last = Window.of(cell, loss, params, h, xs, ys)
        vs, duals = own, jnp.zeros_like(own)
        if steps is not None:
            if len(own) != steps:
                raise ValueError(f"the example has {steps} steps, got a window of {len(own)}")
            vs, duals = jnp.where(state.visits > 0, state.vs, own), state.duals
        mu = (weight * growth ** state.visits.astype(own.dtype)).astype(own.dtype)
        vs, duals = visit(window, params, vs, duals, mu)
        grads = jax.grad(window.lagrangian)(params, vs, duals, mu)
        kept = (None, None) if steps is None else (vs, duals)
        return window.losses(params, own), grads, LiftedState(last, state.visits + 1, *kept)

    return Learner(init, grad)


def relaxed(
    window: Window,
    params: Params,
    vs: Array,
    duals: Array | float,
    mu: Array | float,
    rate: float,
    iterations: int,
) -> Array:
    """vs after so many steps of -rate / mu dL/dv."""
    slope = jax.grad(window.lagrangian, argnums=1)
    return repeated(lambda vs: vs - rate / mu * slope(params, vs, duals, mu), vs, iterations)


def repeated(turn: Callable[[Any], Any], now: Any, count: int) -> Any:
    """turn(turn(... now)), `count` times."""
    return loop(lambda now, _: (turn(now), None), now, length=count)[0]


def lifted_penalty(
    cell: Cell,
    loss: Loss,
    params: Params = None,
    xs: Any = None,
    *,
    weight: float = 1.0,
    growth: float = 1.0,
    rate: float = 0.3,
    iterations: int = 30,
    steps: int | None = None,
) -> Learner:
    """The method of auxiliary coordinates, with a quadratic penalty.

    weight: mu of the first window, times `growth` after each; rate, iterations: of the descent of
    v; steps: of the example whose v is kept. The loss returned is that of the cell's own states.
    """

    def visit(window, params, vs, duals, mu):
        return relaxed(window, params, vs, duals, mu, rate, iterations), duals

    return _lifted(cell, loss, visit, steps, weight, growth, rate=rate, iterations=iterations)


def lifted_admm(
    cell: Cell,
    loss: Loss,
    params: Params = None,
    xs: Any = None,
    *,
    weight: float = 1.0,
    rate: float = 0.3,
    iterations: int = 10,
    rounds: int = 10,
    steps: int | None = None,
) -> Learner:
    """Alternating directions with multipliers: `rounds` of a descent of v and lambda += mu r.

    weight: mu; rate, iterations: of each descent; steps: of the example whose v and lambda are
    kept. The loss returned is that of the cell's own states.
    """

    def visit(window, params, vs, duals, mu):
        def turn(now):
            vs, duals = now
            vs = relaxed(window, params, vs, duals, mu, rate, iterations)
            return vs, duals + mu * (vs - window.predicted(params, vs))

        return repeated(turn, (vs, duals), rounds)

    return _lifted(cell, loss, visit, steps, weight, rate=rate, iterations=iterations,
                   rounds=rounds)  # fmt: skip


def lifted_bcd(
    cell: Cell,
    loss: Loss,
    params: Params = None,
    xs: Any = None,
    *,
    weight: float = 1.0,
    sweeps: int = 5,
    steps: int | None = None,
) -> Learner:
    """Block coordinate descent: the state of one step after the other, from the last to the first.

    weight: mu; sweeps: over the window; steps: of the example whose v is kept. The loss returned
    is that of the cell's own states.
    """

    def visit(window, params, vs, duals, mu):
        return repeated(lambda vs: _sweep(window, params, vs, mu), vs, sweeps), duals

    return _lifted(cell, loss, visit, steps, weight, sweeps=sweeps)


def _sweep(window: Window, params: Params, vs: Array, mu: Array) -> Array:
    """v_t moved by a Newton step for every t, backwards; of the curvature that of l and |r|^2."""
    cell, count = window.cell, len(vs)
    after = jax.tree.map(lambda v: jnp.concatenate([v[1:], v[-1:]]), window.xs)
    own = window.predicted(params, vs)  # those of the steps before, which have not moved yet

    def block(later, now):
        t, h, v, x, y, ahead, f = now
        last = t == count - 1

        def objective(v):
            return window.loss(cell.readout(params, from_vector(h, v), x), y)

        def on(v):
            return to_vector(cell.step(params, from_vector(h, v), ahead))

        J = jnp.where(last, 0, jax.jacobian(on)(v))
        behind, beyond = v - f, jnp.where(last, 0, later - on(v))
        slope = jax.grad(objective)(v) + mu * (behind - beyond @ J)
        curve = mu * (jnp.eye(len(v), dtype=v.dtype) + J.T @ J) + jax.hessian(objective)(v)
        v = v - jnp.linalg.solve(curve, slope)
        return v, v

    steps = jnp.arange(count, dtype=jnp.int32)
    now = steps, window.hs, vs, window.xs, window.ys, after, own
    return loop(block, vs[-1], now, reverse=True)[1]


def local_propagation(
    cell: Cell,
    loss: Loss,
    params: Params = None,
    xs: Any = None,
    *,
    weight: float = 1.0,
    rate: float = 0.3,
    ascent: float = 0.3,
    iterations: int = 30,
    steps: int | None = None,
) -> Learner:
    """The saddle point of L: v descends and lambda ascends, together, `iterations` times.

    weight: mu; rate, ascent: v moves by rate / mu, lambda by ascent mu r; steps: of the example
    whose v and lambda are kept, for which one iteration a visit is the paper's. The loss returned
    is that of the cell's own states.
    """

    def visit(window, params, vs, duals, mu):
        slope = jax.grad(window.lagrangian, argnums=1)

        def turn(now):
            vs, duals = now
            r = vs - window.predicted(params, vs)
            return vs - rate / mu * slope(params, vs, duals, mu), duals + ascent * mu * r

        return repeated(turn, (vs, duals), iterations)

    return _lifted(cell, loss, visit, steps, weight, rate=rate, ascent=ascent,
                   iterations=iterations)  # fmt: skip
