"""Implicit learning of cells that settle: the gradient of a fixed point, without its history.

Every x_t is held until h* = step(params, h*, x_t); by the implicit function theorem
(Almeida 1987, Pineda 1987)

    dl/dtheta = z^T dstep(params, h*, x_t)/dtheta + dl/dtheta direct        survey eq. 69 to 72
    z = (I - J^T)^-1 dl/dh*        J = dstep/dh at h*

    rbp           z by a direct solve                       O(n^2) memory, O(n^3) time
    cg_rbp        by conjugate gradient on (I - J)(I - J^T) z = (I - J) dl/dh*, any invertible
                  I - J                                     O(n), two products a step
    neumann_rbp   z = sum_{q=0..k} (J^T)^q dl/dh*, the gradient of backpropagation through k + 1
                  identical steps at h*; J must contract    O(n), one product a term
                                                                                 arXiv:1803.06396
    crbp          rbp with a penalty that keeps the cell contracting             arXiv:2005.11362

Neither the number of steps it took to settle nor where it started enters the gradient, so memory
does not grow with them and the state before is only a warm start: nothing is learned over time,
and the parameters of the initial state have no gradient. A cell that does not settle is stopped
after `steps`; the state tells the residual, and the gradient is as good as that is small.

Time per x_t O(steps cost(step)) and the solve; n units of state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.sparse.linalg import cg

from seqjax.core.common import largest
from seqjax.core.mesh import loop
from seqjax.learn.cell import Cell, Params, State
from seqjax.learn.influence import from_vector, to_vector
from seqjax.learn.learner import Learner, Loss

Solve = Callable[[Callable[[Array], Array], Array, Array], Array]  # (step, h*, dl/dh*) -> z


class ImplicitState(NamedTuple):
    h: State  # where the last x settled; the next one starts there
    residual: Array  # largest |step(h) - h| of the window, where it was stopped
    iterations: Array  # int32: most steps any x of the window took


def settle(
    cell: Cell, params: Params, h: State, x: Any, *, tolerance: float = 1e-6, steps: int = 100
) -> tuple[State, Array, Array]:
    """The fixed point for a held x from h on, max |h_n - h_{n-1}| at the end, and n.

    Stops at a residual of `tolerance` or after `steps` steps.
    """

    def go_on(carry):
        _, residual, n = carry
        return (residual > tolerance) & (n < steps)

    def body(carry):
        h, _, n = carry
        new = cell.step(params, h, x)
        return new, largest(jnp.abs(to_vector(new) - to_vector(h))), n + 1

    never = jnp.array(jnp.inf, to_vector(h).dtype)
    return lax.while_loop(go_on, body, (h, never, jnp.zeros((), jnp.int32)))


def rbp(cell: Cell, loss: Loss, *, tolerance: float = 1e-6, steps: int = 100) -> Learner:
    """Recurrent backpropagation by a direct solve: the exact gradient of every fixed point."""
    return _implicit(cell, loss, _direct, tolerance, steps)


def cg_rbp(
    cell: Cell, loss: Loss, *, k: int = 20, tolerance: float = 1e-6, steps: int = 100
) -> Learner:
    """Recurrent backpropagation by at most k iterations of conjugate gradient; n are exact."""
    return _implicit(cell, loss, partial(_conjugate, _natural("k", k)), tolerance, steps)


def neumann_rbp(
    cell: Cell, loss: Loss, *, k: int = 20, tolerance: float = 1e-6, steps: int = 100
) -> Learner:
    """Recurrent backpropagation by the Neumann series up to (J^T)^k; k = 0 keeps dl/dh* alone."""
    return _implicit(cell, loss, partial(_neumann, _natural("k", k)), tolerance, steps)


def crbp(
    cell: Cell,
    loss: Loss,
    *,
    weight: float = 1.0,
    lipschitz: float = 0.9,
    k: int | None = None,
    tolerance: float = 1e-6,
    steps: int = 100,
) -> Learner:
    """Contractor recurrent backpropagation: weight * ||(1^T J - lipschitz)^+||_2 beside the loss.

    k: terms of the Neumann series; None solves directly.
    The gradient is that of the whole objective, in which J moves with h*; the published code takes
    h* for a constant there, and squares the entries. The loss returned is without the penalty.
    """
    solve = _direct if k is None else partial(_neumann, _natural("k", k))

    def penalty(step, v):
        columns = jax.vjp(step, v)[1](jnp.ones_like(v))[0]
        return weight * _norm(jax.nn.relu(columns - lipschitz))

    return _implicit(cell, loss, solve, tolerance, steps, penalty)


def _implicit(cell, loss, solve: Solve, tolerance, steps, penalty=None) -> Learner:
    if steps < 1:
        raise ValueError(f"a state settles in at least 1 step, got steps={steps}")

    def init(params: Params, key: Any = None) -> ImplicitState:
        del key
        h = cell.start(params)
        residual = jnp.zeros((), to_vector(h).dtype)
        return ImplicitState(h, residual, jnp.zeros((), jnp.int32))

    def grad(params, state, xs, ys):
        def body(carry, now):
            (h, worst, most), total, grads = carry
            x, target = now
            h, residual, count = settle(cell, params, h, x, tolerance=tolerance, steps=steps)

            def step(params, v):
                return to_vector(cell.step(params, from_vector(h, v), x))

            def objective(params, v):
                value = loss(cell.readout(params, from_vector(h, v), x), target)
                extra = 0 if penalty is None else penalty(partial(step, params), v)
                return value + extra, value

            v = to_vector(h)
            (direct, credit), value = jax.grad(objective, (0, 1), has_aux=True)(params, v)
            z = solve(partial(step, params), v, credit)
            through = jax.vjp(lambda params: step(params, v), params)[1](z)[0]
            grads = jax.tree.map(lambda g, d, t: g + d + t, grads, direct, through)
            # A NaN residual is the worst there is: max keeps it.
            state = ImplicitState(h, jnp.maximum(worst, residual), jnp.maximum(most, count))
            return (state, total + value, grads), None

        fresh = ImplicitState(
            state.h, jnp.zeros_like(state.residual), jnp.zeros_like(state.iterations)
        )
        zero = jnp.zeros((), jnp.result_type(*jax.tree.leaves(params)))
        start = fresh, zero, jax.tree.map(jnp.zeros_like, params)
        (state, total, grads), _ = loop(body, start, (xs, ys))
        return total, grads, state

    return Learner(init, grad)


def _direct(step, v, credit):
    J = jax.jacrev(step)(v)
    return jnp.linalg.solve(jnp.eye(len(v), dtype=v.dtype) - J.T, credit)


def _conjugate(k, step, v, credit):
    _, forward = jax.linearize(step, v)
    _, back = jax.vjp(step, v)

    def normal(z):
        z = z - back(z)[0]
        return z - forward(z)

    enough = float(jnp.finfo(v.dtype).eps)  # beyond it 0/0 is near
    return cg(normal, credit - forward(credit), tol=enough, maxiter=k)[0]


def _neumann(k, step, v, credit):
    _, back = jax.vjp(step, v)
    return lax.fori_loop(0, k, lambda _, z: credit + back(z)[0], credit)


def _norm(v):
    """|v|, with the gradient 0 at 0."""
    square = jnp.sum(v * v)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _natural(name: str, value: int) -> int:
    if value < 0:
        raise ValueError(f"{name} is at least 0, got {value}")
    return value
