"""UORO: an unbiased rank-one estimate of the influence (Tallec & Ollivier, arXiv:1702.05043).

    M_t ~ a_t b_t^T                                                            survey eq. 73, 74
    a_t = rho_0 J_t a_{t-1} + rho_1 nu            nu random signs, E nu nu^T = identity
    b_t = b_{t-1} / rho_0 + nu^T I_t / rho_1
    dL/dtheta ~ sum_t ((dl_t/dh_t a_t) b_t + dl_t/dtheta)

rho_0 = sqrt(|b_{t-1}| / |J_t a_{t-1}|) and rho_1 = sqrt(|nu^T I_t| / |nu|) keep the two factors of
equal size, which makes the variance small. (The survey prints rho_1 for 1 / rho_1 in b, which would
not be unbiased.) The mean over nu is RTRL's gradient as long as the parameters do not change;
`rank` estimates are averaged, the variance falls as 1 / rank.

Per step: one forward and one backward product; time O(cost(step)), memory O(n + P), times rank.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from seqjax.learn.cell import Cell, Params, State
from seqjax.learn.influence import from_vector, to_vector
from seqjax.learn.learner import Learner, Loss, summed

EPS = 1e-12


class UOROState(NamedTuple):
    h: State
    a: Array  # [rank, n]
    b: Array  # [rank, P]
    key: Array  # raw data


def uoro(
    cell: Cell, loss: Loss, params: Params = None, xs: Any = None, *, rank: int = 1
) -> Learner:
    """UORO of any cell. Its `init` takes a random key. Raises ValueError if rank < 1."""
    if rank < 1:
        raise ValueError(f"uoro averages at least 1 estimate, got rank={rank}")

    def init(params: Params, key: Array | None = None) -> UOROState:
        if key is None:
            raise ValueError("uoro draws random signs: init(params, key)")
        theta, unravel = ravel_pytree(params)
        draw, later = jax.random.split(key)
        v, pull = jax.vjp(lambda theta: to_vector(cell.start(unravel(theta))), theta)
        nu = jax.random.rademacher(draw, (rank, len(v)), v.dtype)
        b = jax.vmap(pull)(nu)[0]
        return UOROState(cell.start(params), nu, b, jax.random.key_data(later))

    def step(params, state, x, target):
        (h, a, b, key), (theta, unravel) = state, ravel_pytree(params)
        draw, key = jax.random.split(jax.random.wrap_key_data(key))
        nu = jax.random.rademacher(draw, a.shape, a.dtype)

        def move(theta, v):
            return to_vector(cell.step(unravel(theta), from_vector(h, v), x))

        v = to_vector(h)
        _, pull = jax.vjp(lambda theta: move(theta, v), theta)
        _, forward = jax.linearize(lambda v: move(theta, v), v)
        a, b = _factors(jax.vmap(forward)(a), b, nu, jax.vmap(pull)(nu)[0])
        h = cell.step(params, h, x)

        def objective(theta, v):
            return loss(cell.readout(unravel(theta), from_vector(h, v), x), target)

        value, (direct, credit) = jax.value_and_grad(objective, (0, 1))(theta, to_vector(h))
        grads = direct + jnp.mean((a @ credit)[:, None] * b, axis=0)
        return value, unravel(grads), UOROState(h, a, b, jax.random.key_data(key))

    return Learner(init, summed(step))


def _factors(a, b, nu, immediate):
    """Both factors after the step, scaled so that neither outgrows the other."""

    def norm(v):
        return jnp.sqrt(jnp.sum(v * v, axis=1, keepdims=True)) + EPS

    rho_0 = jnp.sqrt(norm(b) / norm(a))
    rho_1 = jnp.sqrt(norm(immediate) / norm(nu))
    return rho_0 * a + rho_1 * nu, b / rho_0 + immediate / rho_1
