"""What a step does to a small change of the state: Jacobians along a sequence, and their products.

    J_t = d h_t / d h_{t-1}                   a matrix [N, N], of the N real numbers of a state
    P_t = J_T J_{T-1} .. J_{t+1} = d h_T / d h_t

Products over hundreds of steps leave the range of floating point long before they are 0, so that
their sizes are logarithms here: a product is kept as exp(log) P with |P| = 1. All functions are
differentiable, in what the Jacobians are of too: in weights and inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from seqjax.core.flow import Carry, Flow
from seqjax.nn.base import Layer
from seqjax.nn.variables import from_real, to_real


def numbers(state: Any) -> tuple[Array, Callable[[Array], Any]]:
    """The real numbers [N] of a state, both parts of complex ones, and the way back."""
    flat, back = ravel_pytree(to_real(state))
    return flat, lambda flat: from_real(state, back(flat))


def step_of(layer: Layer) -> Callable[[Any, Array], Any]:
    """(state, x [features]) -> the state after that step. Raises ValueError for no recurrence."""
    if not layer.causal:
        raise ValueError(f"{type(layer).__name__} reads the future: its state has no steps")
    if not numbers(layer.start())[0].size:
        raise ValueError(f"{type(layer).__name__} has no state of real numbers")

    def step(h: Any, x: Array) -> Any:
        new = layer.example(x[None], Carry(h, layer.start()), Flow())[1]
        return jax.tree.map(lambda old, v: v.astype(old.dtype), h, new)

    return step


def jacobians(layer: Layer, x: Array, h: Any = None) -> tuple[Array, Any]:
    """J [T - 1, N, N] of steps 2 to T of x [T, features], and the last state.

    h: the state before the first step, `layer.start()` if None. That step is left out: a first
    state may be infinite, as a running maximum of nothing is.
    """
    step = step_of(layer)
    h = step(layer.start() if h is None else h, x[0])

    def body(h: Any, x: Array) -> tuple[Any, Array]:
        flat, back = numbers(h)
        J = jax.jacfwd(lambda flat: numbers(step(back(flat), x))[0])(flat)
        return step(h, x), J

    last, J = lax.scan(body, h, x[1:])
    return J, last


def log_norms(J: Array) -> Array:
    """log |d h_T / d h_t| [T], the largest singular values, of J [T, N, N], t = T - 1 .. 0."""

    def body(carry: tuple[Array, Array], J: Array) -> tuple[tuple[Array, Array], Array]:
        P, log = carry
        P = P @ J
        size = jnp.max(jnp.abs(P))
        kept = jnp.where(size > 0, size, 1)
        P, log = P / kept, log + jnp.log(size)
        return (P, log), log + jnp.log(jnp.linalg.norm(P, 2))

    one = jnp.eye(J.shape[1], dtype=J.dtype)
    return lax.scan(body, (one, jnp.zeros((), J.dtype)), J, reverse=True)[1][::-1]


def stretches(J: Array) -> Array:
    """log of the diagonals of R_t [T, N] of J_t Q_{t-1} = Q_t R_t, J [T, N, N], Q_0 = I.

    Their means over time are the Lyapunov exponents, largest first (Benettin et al. 1980); those of
    linear maps that are one and the same are the logarithms of the moduli of its eigenvalues.
    """

    def body(Q: Array, J: Array) -> tuple[Array, Array]:
        Q, R = jnp.linalg.qr(J @ Q)
        return Q, jnp.log(jnp.abs(jnp.diagonal(R)))

    return lax.scan(body, jnp.eye(J.shape[1], dtype=J.dtype), J)[1]


def gershgorin(J: Array) -> Array:
    """max_i |J_ii| + sum_{j != i} |J_ij| [...] of J [..., N, N]: no eigenvalue is larger."""
    return jnp.max(jnp.sum(jnp.abs(J), axis=-1), axis=-1)
