"""Real-time recurrent learning: the exact gradient, forward in time (Williams & Zipser 1989).

    M_t = J_t M_{t-1} + I_t              dL/dtheta = sum_t (dl_t/dh_t M_t + dl_t/dtheta)

    J_t = dh_t/dh_{t-1}, I_t = dstep_t/dtheta, M_0 = dh_0/dtheta        survey eq. 64 to 68

Nothing of the past is stored but M, so a stream may be endless. Ways to evaluate it (`mode`), equal
to each other and to backpropagation through the whole stream:

    online   step after step: P forward products J M and the immediate influence    O(n P) memory
    scan     the window as one scan of the affine maps (J_t, I_t), parallel in time O(T n (n + P))
    window   a window is a step of a larger cell: backpropagation in the window, and M carried
             over it; the cheapest way to take long windows                        O(T n + n P)
    sparse   only what is ever not zero, found by `influence`: diagonal, block-diagonal, columns,
             diagonal matrix states; O(P) for element-wise recurrences

Matrix states [K, V] come under the same rule, and what is kept is found, not declared. With a decay
per key (GLA) a parameter of a key or gate channel moves a row, V units, one of a value channel a
column, K units. A delta rule mixes the keys of a column: a value parameter moves K units, those of
keys, gates and beta all K V. Either is exact; M is stored whole, n P numbers, as soon as some
parameter reaches more than half of the state, as a low-rank gate or a key of the delta rule does.

n units of state, P parameters. One dense step takes O(n P) products of size n: n^4 for an RNN.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from seqjax.core.mesh import loop
from seqjax.core.monoid import dense
from seqjax.core.scan import scan
from seqjax.learn.cell import Cell, Params, State
from seqjax.learn.influence import Influence, from_vector, influence, to_vector
from seqjax.learn.learner import Learner, Loss, summed
from seqjax.nn.base import option

MODES = ("online", "scan", "window")


class RTRLState(NamedTuple):
    h: State
    M: Array  # dh/dtheta: [n, P]; [P, s] where it is sparse


def rtrl(
    cell: Cell, loss: Loss, params: Params = None, xs: Any = None, *, mode: str = "online"
) -> Learner:
    """Exact RTRL of any cell, with a dense influence matrix [n, P].

    mode: "online", "scan" or "window": three ways to the same numbers.
    """
    option("mode of rtrl", mode, MODES)

    def init(params: Params, key: Any = None) -> RTRLState:
        del key
        theta, unravel = ravel_pytree(params)
        M = jax.jacrev(lambda theta: to_vector(cell.start(unravel(theta))))(theta)
        return RTRLState(cell.start(params), M)

    if mode == "online":
        return Learner(init, summed(partial(_online, cell, loss)))
    return Learner(init, partial({"scan": _scan, "window": _window}[mode], cell, loss))


def rtrl_sparse(cell: Cell, loss: Loss, params: Params, xs: Any, **options: Any) -> Learner:
    """Exact RTRL that keeps what a parameter ever reaches: `influence` with these options."""
    return eligible(cell, loss, influence(cell, params, xs, **options))


def rtrl_elementwise(cell: Cell, loss: Loss, params: Params, xs: Any) -> Learner:
    """Exact RTRL for element-wise recurrences (arXiv:2305.19044): O(P) a step.

    Every unit owns its parameters and sees only itself: eLSTM, IndRNN, LRU, RG-LRU and the like.
    Raises ValueError for a cell whose units see each other.
    """
    found = influence(cell, params, xs)
    units = found.pattern.units.shape[1]
    cross = found.pattern.jacobian.sum(axis=1).max()
    if cross > 2 or units > 2:  # two: a complex unit, or a pair such as (c, n)
        raise ValueError(
            f"rtrl_elementwise takes element-wise recurrences: here a unit sees {cross} units and "
            f"a parameter reaches {units}; use rtrl or rtrl_sparse"
        )
    return eligible(cell, loss, found)


def eligible(cell: Cell, loss: Loss, kept: Influence) -> Learner:
    """The gradient through what is kept of M: sum_t (dl_t/dh_t M_t + dl_t/dtheta).

    Time and memory of a step: those of `kept`. Any truncation is that of the influence.
    """

    def init(params: Params, key: Any = None) -> RTRLState:
        del key
        return RTRLState(cell.start(params), kept.init(params))

    def step(params, state, x, y):
        h, M = state
        M = kept.push(params, h, x, M)
        h = cell.step(params, h, x)
        value, direct, credit = _credit(cell, loss, params, h, x, y)
        grads = ravel_pytree(params)[1](direct + kept.pull(credit, M))
        return value, grads, RTRLState(h, M)

    return Learner(init, summed(step))


def _credit(cell, loss, params, h, x, y) -> tuple[Array, Array, Array]:
    """l_t, its direct gradient [P] by the readout, and the credit dl_t/dh_t [n]."""
    theta, unravel = ravel_pytree(params)

    def objective(theta, v):
        return loss(cell.readout(unravel(theta), from_vector(h, v), x), y)

    value, (direct, credit) = jax.value_and_grad(objective, (0, 1))(theta, to_vector(h))
    return value, direct, credit


def _online(cell, loss, params, state, x, y):
    (h, M), (theta, unravel) = state, ravel_pytree(params)

    def step(theta, v):
        return to_vector(cell.step(unravel(theta), from_vector(h, v), x))

    identity = jnp.eye(len(theta), dtype=theta.dtype)
    along = jax.linearize(step, theta, to_vector(h))[1]
    M = jax.vmap(along, out_axes=1)(identity, M.T)  # J M + I, a column per parameter
    h = cell.step(params, h, x)
    value, direct, credit = _credit(cell, loss, params, h, x, y)
    return value, unravel(direct + credit @ M), RTRLState(h, M)


def _scan(cell, loss, params, state, xs, ys):
    theta, unravel = ravel_pytree(params)

    def run(h, x):
        return cell.step(params, h, x), h

    last, before = loop(run, state.h, xs)

    def lift(h, x):
        def step(theta, v):
            return to_vector(cell.step(unravel(theta), from_vector(h, v), x))

        I, J = jax.jacrev(step, (0, 1))(theta, to_vector(h))
        return J, I

    Ms, M = scan(dense, jax.vmap(lift)(before, xs), state.M)
    after = jax.tree.map(lambda b, e: jnp.concatenate([b[1:], e[None]]), before, last)
    credit = jax.vmap(lambda h, x, y: _credit(cell, loss, params, h, x, y))
    value, direct, credits = credit(after, xs, ys)
    grads = jnp.sum(direct, axis=0) + jnp.einsum("tn,tnp->p", credits, Ms)
    return jnp.sum(value), unravel(grads), RTRLState(last, M)


def _window(cell, loss, params, state, xs, ys):
    theta, unravel = ravel_pytree(params)

    def run(theta, v):
        def body(h, now):
            h = cell.step(unravel(theta), h, now[0])
            return h, loss(cell.readout(unravel(theta), h, now[0]), now[1])

        h, losses = loop(body, from_vector(state.h, v), (xs, ys))
        return (jnp.sum(losses), to_vector(h)), h

    (total, _), pull, h = jax.vjp(run, theta, to_vector(state.h), has_aux=True)
    n = len(state.M)
    one, none = jnp.ones((), theta.dtype), jnp.zeros((), theta.dtype)
    grads, credit = pull((one, jnp.zeros(n, theta.dtype)))
    rows = jnp.eye(n, dtype=theta.dtype)
    I, J = jax.vmap(lambda row: pull((none, row)))(rows)
    return total, unravel(grads + credit @ state.M), RTRLState(h, J @ state.M + I)
