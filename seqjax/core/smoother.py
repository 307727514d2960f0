"""Kalman smoothing in parallel: the step of Newton's method within a trust region (ELK).

Newton's method on a trajectory takes h_t = J_t h_{t-1} + b_t as it is, and overflows where the J_t
expand. ELK (arXiv:2407.19115, sec. 4.3; a Levenberg-Marquardt step) stays near the last guess g:

    minimise over h_1 .. h_T    sum_t |h_t - J_t h_{t-1} - b_t|^2 + trust |h_t - g_t|^2

which is the mean of the states of a linear Gaussian model with unit noise whose observations are g,
of variance 1 / trust. With M_t = J_t P_{t-1} J_t' + I, P_0 = 0 and h_0 known,

    P_t = (M_t^-1 + trust I)^-1                                     covariances of the filter
    m_t = (I - trust P_t) (J_t m_{t-1} + b_t) + trust P_t g_t       its means
    h_t = m_t + E_t (h_{t+1} - J_{t+1} m_t - b_{t+1}),    E_t = P_t J_{t+1}' M_{t+1}^-1

The means are affine scans, forward and backward; P_t is a linear fractional map of P_{t-1}, which
the monoid `riccati` composes (arXiv:1905.13002 composes all five parts of the filter at once).
With trust = 0 it is Newton's step. Diagonal J keep all of it diagonal (quasi-ELK).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from seqjax.core.monoid import Monoid
from seqjax.core.scan import scan


class Algebra(NamedTuple):
    """Matrices [..., n, n], or their diagonals [..., n]."""

    one: Callable[[Array], Array]  # the identity, shaped like a matrix
    times: Callable[[Array, Array], Array]
    transposed: Callable[[Array], Array]
    solve: Callable[[Array, Array], Array]  # A^-1 B


def _one(A: Array) -> Array:
    return jnp.broadcast_to(jnp.eye(A.shape[-1], dtype=A.dtype), A.shape)


MATRICES = Algebra(_one, jnp.matmul, lambda A: jnp.swapaxes(A, -1, -2), jnp.linalg.solve)
DIAGONALS = Algebra(jnp.ones_like, jnp.multiply, lambda A: A, lambda A, B: B / A)


def riccati(algebra: Algebra) -> Monoid:
    """P -> A (I + P J)^-1 P A' + C; element (A, C, J), C and J positive semidefinite like P."""
    one, times, transposed, solve = algebra

    def combine(p, q):
        (A_1, C_1, J_1), (A_2, C_2, J_2) = p, q
        between = one(A_1) + times(C_1, J_2)
        A, C = solve(between, A_1), solve(between, C_1)
        return (
            times(A_2, A),
            times(times(A_2, C), transposed(A_2)) + C_2,
            times(times(transposed(A_1), J_2), A) + J_1,
        )

    def act(e, P):
        A, C, J = e
        return times(times(A, solve(one(A) + times(P, J), P)), transposed(A)) + C

    def identity(e):
        return one(e[0]), jnp.zeros_like(e[1]), jnp.zeros_like(e[2])

    return Monoid(combine, identity, act, "linear fractional", element=("A", "C", "J"))


def smoothed(
    J: Array,
    b: Array,
    g: Array,
    h0: Array,
    trust: Array | float,
    *,
    affine: Monoid,
    times: Callable[[Array, Array], Array],
    evaluator: str | None = None,
) -> Array:
    """The h [T, ...] of the module's minimum, for J [T, ...] of the structure of `affine`.

    b, g: [T, ...] like h0; times(J_t, v) is J_t v. evaluator: of the scans.
    """
    diagonal = J.ndim == b.ndim
    one, product, transposed, solve = algebra = DIAGONALS if diagonal else MATRICES
    keep = 1 / (1 + trust)
    gain, I = trust * keep, one(J)
    steps = keep * J, keep * I, gain * product(transposed(J), J)
    P, _ = scan(riccati(algebra), steps, jnp.zeros_like(J[0]), evaluator=evaluator)
    each = jax.vmap(times)
    left = I - trust * P
    filtered = product(left, J), each(left, b) + trust * each(P, g)
    m, _ = scan(affine, filtered, h0, evaluator=evaluator)
    if len(m) == 1:
        return m
    J, b, P, now = J[1:], b[1:], P[:-1], m[:-1]  # what leads from each step to the next
    M = product(product(J, P), transposed(J)) + I[1:]
    E = transposed(solve(M, product(J, P)))
    back = E, now - each(E, each(J, now) + b)
    h, _ = scan(affine, back, m[-1], reverse=True, evaluator=evaluator)
    return jnp.concatenate([h, m[-1:]])
