"""Forward propagation through time: an update at every window, held together by a regulariser.

Kag & Saligrama, ICML 2021 (PMLR 139:5189). Window k has the objective

    l_k(w) + (rho - 1) <w, s> + weight alpha/2 |w - w_bar|^2

with the state before the window as a constant, and after the optimiser has moved w

    s     <- s - alpha (w - w_bar)                          estimates the gradient of l_k at w
    w_bar <- (1 - beta) w_bar + beta w - beta/alpha s       with the new s

from s = 0, w_bar = w_0. A window of one step is FPTT; windows of T/K steps, with backpropagation
inside, are FPTT-K (K updates for a sequence of T). Where only the end has a target, the paper's
auxiliary loss at the other steps is the loss's business.

This is the published code. The paper (survey eq. 77) differs: its linear term is
-1/2 <w, s>, half of ours at rho = 0; its beta is 1/2; and it takes s for the gradient of l_k at the
new w itself, which costs a second one, where s above is that gradient if w minimises the objective.
The code ends an epoch with w = w_bar and s = 0: that is `init(state.w_bar)`.

The optimiser stands outside, so `grad` finishes the update of (s, w_bar) of the window before with
the parameters it is now given: it must be given those that were updated with its last gradient.
Time O(T cost(step)), memory O(T n + 3 P), T the window: independent of the sequence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seqjax.learn.bptt import BPTTState, bptt
from seqjax.learn.cell import Cell, Params, State
from seqjax.learn.learner import Learner, Loss


class Anchor(NamedTuple):
    """What FPTT remembers of the windows before."""

    s: Params  # running estimate of the gradient
    w_bar: Params  # running mean of the parameters, corrected by s


class FPTTState(NamedTuple):
    h: State
    s: Params  # both as they were before the last update of the parameters
    w_bar: Params


def fptt(
    cell: Cell,
    loss: Loss,
    params: Params = None,
    xs: Any = None,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    rho: float = 0.0,
    weight: float = 1.0,
) -> Learner:
    """FPTT of any cell. The loss returned is without the regulariser.

    alpha: strength of the pull to w_bar; beta: how fast w_bar follows; rho: takes off the linear
    term; weight: of the quadratic one. Raises ValueError unless alpha > 0.
    """
    if alpha <= 0:
        raise ValueError(f"fptt divides by alpha: it must be positive, got {alpha}")
    window = bptt(cell, loss)

    def init(params: Params, key: Any = None) -> FPTTState:
        del key
        return FPTTState(cell.start(params), jax.tree.map(jnp.zeros_like, params), params)

    def grad(params, state, xs, ys):
        anchor = follow_up(Anchor(state.s, state.w_bar), params, alpha, beta)
        total, grads, (h,) = window.grad(params, BPTTState(state.h), xs, ys)
        pull = jax.grad(regulariser)(params, anchor, alpha, rho, weight)
        return total, jax.tree.map(jnp.add, grads, pull), FPTTState(h, *anchor)

    return Learner(init, grad)


def regulariser(params: Params, anchor: Anchor, alpha: float, rho: float, weight: float):
    """(rho - 1) <w, s> + weight alpha/2 |w - w_bar|^2."""

    def leaf(w, s, w_bar):
        return (rho - 1) * jnp.sum(w * s) + weight * alpha / 2 * jnp.sum(jnp.square(w - w_bar))

    return sum(jax.tree.leaves(jax.tree.map(leaf, params, *anchor)))


def follow_up(anchor: Anchor, params: Params, alpha: float, beta: float) -> Anchor:
    """(s, w_bar) after the parameters have moved to `params`; at w_0 it changes nothing."""
    s = jax.tree.map(lambda s, w, w_bar: s - alpha * (w - w_bar), anchor.s, params, anchor.w_bar)
    w_bar = jax.tree.map(
        lambda w_bar, w, s: (1 - beta) * w_bar + beta * w - beta / alpha * s,
        anchor.w_bar, params, s,
    )  # fmt: skip
    return Anchor(s, w_bar)
