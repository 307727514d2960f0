"""Generalised teacher forcing: the state is drawn to the data, no further than chaos demands.

Hess et al. 2023 (arXiv:2306.04406), after Doya 1992. Before each step the units that are observed,
the first ones of the state, are mixed with the y before:

    z~_{t-1} = (1 - alpha) z_{t-1} + alpha y_{t-1}
    z_t = step(theta, z~_{t-1}, x_t)            loss: readout(theta, z_t, x_t) against y_t

so that a Jacobian product along time is that of (1 - alpha) J_t, and does not explode where
(1 - alpha) sigma <= 1, sigma the norm of J. alpha = 1 is teacher forcing of the state, 0
backpropagation through time. With alpha None it is annealed, once a window (their "aGTF"):

    alpha* = max(0, 1 - 1 / sigma)
    alpha <- alpha* if alpha* > alpha, else gamma alpha + (1 - gamma) alpha*

from alpha = 1, where sigma, by `estimate`, is the spectral norm of the mean of the Jacobians along
the window ("mean"), or the geometric mean of their spectral norms, a bound on the product's
("product"). As in their code, J_t is that of step at the data; units that are not observed are the
model's own. Ours is for one stream: under `batched` each has its alpha, where theirs take the
largest of the batch.

The first units are what is observed, whatever the readout: of another observation the inverse is
given as ys. An annealed alpha costs N cost(step) and N^3 a step.
Time O(T cost(step)), memory O(T N).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.mesh import loop
from seqjax.learn.cell import Cell, Params
from seqjax.learn.learner import Learner, Loss
from seqjax.nn.base import option

ESTIMATES = ("mean", "product")


class GTFState(NamedTuple):
    z: Array  # [N]
    previous: Array  # y_{t-1} of the data, [n]
    alpha: Array


def gtf(
    cell: Cell,
    loss: Loss,
    start: Any,
    *,
    alpha: float | None = None,
    gamma: float = 0.999,
    estimate: str = "mean",
) -> Learner:
    """Generalised teacher forcing of a cell whose state is a vector.

    start: [n], the y before the first; n is how many units are observed.
    alpha: in [0, 1]; None anneals it, by `gamma` and `estimate`.
    ys are the data, xs what the cell reads beside (zeros, or what else its step takes).
    """
    option("estimate of gtf", estimate, ESTIMATES)
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], or None to anneal it; got {alpha}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")

    def init(params: Params, key: Any = None) -> GTFState:
        del key
        z, y = cell.start(params), jnp.asarray(start)
        if not isinstance(z, Array) or z.ndim != 1 or y.ndim != 1 or len(y) > len(z):
            raise ValueError(
                "gtf forces the first units of a state that is one vector, as that of plrnn; got "
                f"shapes {jax.tree.map(jnp.shape, z)} and {y.shape} of start"
            )
        return GTFState(z, y.astype(z.dtype), jnp.asarray(1.0 if alpha is None else alpha, z.dtype))

    def grad(params, state, xs, ys):
        before = jnp.concatenate([state.previous[None], ys[:-1].astype(state.previous.dtype)])
        now = state.alpha
        if alpha is None:
            now = annealed(now, _norm(cell, params, state.z, before, xs, now, estimate), gamma)

        def objective(params):
            def body(z, now_):
                x, y, seen = now_
                z = cell.step(params, forced(z, seen, now), x)
                return z, loss(cell.readout(params, z, x), y)

            z, losses = loop(body, state.z, (xs, ys, before))
            return jnp.sum(losses), z

        (total, z), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return total, grads, GTFState(z, ys[-1].astype(state.previous.dtype), now)

    return Learner(init, grad)


def forced(z: Array, y: Array, alpha: Array | float) -> Array:
    """z with its first units drawn to y: at alpha = 1 they are y."""
    n = len(y)
    return z.at[:n].set((1 - alpha) * z[:n] + alpha * y)


def annealed(alpha: Array, norm: Array, gamma: float) -> Array:
    """The next alpha: up at once, down slowly."""
    wanted = jnp.maximum(0, 1 - 1 / norm)
    return jnp.where(wanted > alpha, wanted, gamma * alpha + (1 - gamma) * wanted)


def _norm(cell, params, z, before, xs, alpha, estimate) -> Array:
    def body(z, now):
        x, y = now
        J = jax.jacfwd(lambda z: cell.step(params, z, x))(forced(z, y, 1.0))
        return cell.step(params, forced(z, y, alpha), x), J

    J = lax.stop_gradient(loop(body, z, (xs, before))[1])
    if estimate == "mean":
        return jnp.linalg.norm(jnp.mean(J, axis=0), 2)
    norms = jax.vmap(lambda J: jnp.linalg.norm(J, 2))(J)
    return jnp.exp(jnp.mean(jnp.log(norms)))
