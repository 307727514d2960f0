"""SnAp-n: RTRL that keeps of the influence only what is near (Menick et al., arXiv:2006.07232).

    M~_t = R_n * (J_t M~_{t-1} + I_t)         dL/dtheta = sum_t (dl_t/dh_t M~_t + dl_t/dtheta)

R_n[k, p] = 1 if parameter p reaches unit k within n steps. n = 1 keeps as many numbers as
there are parameters in most cells; with n large enough (2 for a dense network) it is RTRL.
Exact when nothing reaches further, as in element-wise recurrences: then SnAp-1 is RTRL.

`eprop` cuts in space rather than time: an eligibility trace per synapse, carried by what a unit
keeps of itself, and a learning signal,

    e_t = own_t * e_{t-1} + I_t               dL/dtheta = sum_t L_t e_t       arXiv:1901.09049

own_t = dh_t^k/dh_{t-1}^k without the path through the recurrent weights; L_t = dl_t/dh_t, or a
random projection of the output error (`feedback`). For a leaky tanh RNN with random feedback it
is RFLO (Murray 2019, eLife 8:e43299).

Per step, s units kept per parameter: memory O(P s); time O(P s^2) and the products with J and I
(n of them in a dense cell, one in an element-wise one).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from seqjax.learn.cell import Cell, Params
from seqjax.learn.influence import from_vector, influence, to_vector
from seqjax.learn.learner import Learner, Loss, summed
from seqjax.learn.rtrl import RTRLState, eligible


def snap(
    cell: Cell, loss: Loss, params: Params, xs: Any, *, n: int = 1, absent: Any = None
) -> Learner:
    """SnAp-n of a cell with these parameters and inputs like xs [N, ...].

    absent: like params, bool: weights that a sparse network does not have.
    """
    return eligible(cell, loss, influence(cell, params, xs, steps=n, absent=absent))


def eprop(
    cell: Cell,
    loss: Loss,
    params: Params,
    xs: Any,
    *,
    own: Callable[[Params, Any, Any, Any], Any] | None = None,
    feedback: Array | None = None,
) -> Learner:
    """Eligibility traces of the synapses that a unit owns, times a learning signal.

    own(params, h_own, h, x): the step, with what a unit keeps of itself (h_own) kept apart from
        what comes over the recurrent weights (h); None: the whole diagonal of the Jacobian.
    feedback: [outputs, n]; the learning signal is dl_t/dy_t times it in place of dl_t/dh_t.
    """
    kept = influence(cell, params, xs, steps=1, diagonal=True)
    if own is None and feedback is None:
        return eligible(cell, loss, kept)
    units = jnp.asarray(kept.pattern.units)

    def push(params, h, x, M):
        local = own
        if local is None:
            return kept.push(params, h, x, M)
        v = to_vector(h)

        def keep(v):
            return to_vector(local(params, from_vector(h, v), h, x))

        decay = jax.jvp(keep, (v,), (jnp.ones_like(v),))[1]  # its Jacobian is diagonal
        return jnp.append(decay, 0)[units] * M + kept.push(params, h, x, jnp.zeros_like(M))

    def init(params: Params, key: Any = None) -> RTRLState:
        del key
        return RTRLState(cell.start(params), kept.init(params))

    def step(params, state, x, target):
        (h, M), (theta, unravel) = state, ravel_pytree(params)
        M = push(params, h, x, M)
        h = cell.step(params, h, x)

        def objective(theta, v):
            y = cell.readout(unravel(theta), from_vector(h, v), x)
            return loss(y, target), y

        (value, y), (direct, credit) = jax.value_and_grad(objective, (0, 1), has_aux=True)(
            theta, to_vector(h)
        )
        if feedback is not None:
            credit = jax.grad(loss)(y, target) @ feedback
        return value, unravel(direct + kept.pull(credit, M)), RTRLState(h, M)

    return Learner(init, summed(step))
