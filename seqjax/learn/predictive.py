"""Predictive coding along a recurrence: errors settle by local rules (Millidge et al. 2006.04182).

Every state is a node v_t that its parent predicts, and all of them settle on the energy

    F = sum_t 1/2 |eps_t|^2 + l(readout(v_t), y_t)          eps_t = v_t - step(theta, v_{t-1}, x_t)

from the states that the cell goes through, by gradient flow, in steps of `rate`:

    v_t <- v_t - rate (eps_t - (dstep_{t+1}/dv_t)^T eps_{t+1} + dl_t/dv_t)

An error moves one step at an iteration, all steps at once; then dF/dtheta is local to a step. With
l = 1/2 |.|^2 the output is the paper's clamped node; a loss is that in general.

    fixed       predictions and their derivatives stay those of the forward pass (as the
                paper assumes): at rest eps_t is minus BPTT's dL/dh_t, so the gradient is that of
                BPTT; with rate 1 that is exact after T iterations, and after k of them each loss
                has been sent back over k steps
    otherwise   they move with v: dF/dtheta at rest, near BPTT's where the loss is small beside
                1/2 |eps|^2 (an output of large variance, Whittington & Bogacz 2017)

T steps of a window, n units: time O(cost(step)) an iteration and step, memory O(T n).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from seqjax.learn.bptt import BPTTState
from seqjax.learn.cell import Cell, Params
from seqjax.learn.learner import Learner, Loss
from seqjax.learn.lifted import Window, relaxed, repeated


def predictive_coding(
    cell: Cell,
    loss: Loss,
    params: Params = None,
    xs: Any = None,
    *,
    fixed: bool = True,
    rate: float = 1.0,
    iterations: int | None = None,
) -> Learner:
    """Predictive coding in each window; the state before it is a constant.

    fixed: predictions stay those of the forward pass.
    rate, iterations: of the flow; None: as many as the window has steps. Without `fixed` a rate of
        1 may be too much.
    """
    if rate <= 0:
        raise ValueError(f"rate must be > 0, got {rate}")
    if iterations is not None and iterations < 0:
        raise ValueError(f"iterations must be >= 0, or None for all steps; got {iterations}")

    def init(params: Params, key: Any = None) -> BPTTState:
        del key
        return BPTTState(cell.start(params))

    def grad(params, state, xs, ys):
        window, vs, last = Window.of(cell, loss, params, state.h, xs, ys)
        count = len(vs) if iterations is None else iterations
        total, (direct, slope) = jax.value_and_grad(window.losses, (0, 1))(params, vs)
        if fixed:
            pull = jax.vjp(window.predicted, params, vs)[1]

            def flow(eps):
                return eps - rate * (eps - pull(eps)[1] + slope)

            eps = repeated(flow, jnp.zeros_like(vs), count)
            grads = jax.tree.map(jnp.subtract, direct, pull(eps)[0])
        else:
            vs = relaxed(window, params, vs, 0.0, 1.0, rate, count)
            grads = jax.grad(window.lagrangian)(params, vs, 0.0, 1.0)
        return total, grads, BPTTState(last)

    return Learner(init, grad)
