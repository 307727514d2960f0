"""Skew-symmetric matrices, S^T = -S, and the orthogonal ones that they stand for.

Of S [n, n] there are n (n - 1) / 2 numbers, those above the diagonal, row by row.
"""

import jax
import jax.numpy as jnp
import numpy as np


def above(S: jax.Array) -> jax.Array:
    """The numbers above the diagonal of S [n, n]."""
    return S[np.triu_indices(len(S), 1)]


def from_upper(numbers: jax.Array, size: int) -> jax.Array:
    """S [size, size] of the numbers above its diagonal."""
    S = jnp.zeros((size, size), numbers.dtype).at[np.triu_indices(size, 1)].set(numbers)
    return S - S.T


def exponential(S: jax.Array) -> jax.Array:
    """exp(S): every rotation, that is every orthogonal matrix of determinant 1."""
    return jax.scipy.linalg.expm(S)


def cayley(S: jax.Array) -> jax.Array:
    """(I + S)^{-1} (I - S): the rotations without the eigenvalue -1."""
    one = jnp.eye(len(S), dtype=S.dtype)
    return jnp.linalg.solve(one + S, one - S)


def blocks(angles: jax.Array, size: int) -> jax.Array:
    """The numbers above the diagonal of the S whose 2 x 2 blocks are [[0, a], [-a, 0]]."""
    first = 2 * np.arange(len(angles))
    return above(jnp.zeros((size, size), angles.dtype).at[first, first + 1].set(angles))


def orthonormal(X: jax.Array) -> jax.Array:
    """An X that is nearly orthogonal, nearer: X (3 I - X^T X) / 2, a step of Newton and Schulz.

    What is left of an error e of X^T X is of the size of e^2.
    """
    return 1.5 * X - 0.5 * X @ (X.T @ X)


def stiefel_step(X: jax.Array, G: jax.Array, rate: float | jax.Array) -> jax.Array:
    """A step of gradient descent that leaves X^H X = I (Wisdom et al. 2016, arXiv:1611.00035).

    X <- (I + rate/2 A)^{-1} (I - rate/2 A) X,   A = G X^H - X G^H                   eq. 8, 9

    G is dL/dX; of a complex X, dL/dRe X + i dL/dIm X, the conjugate of what `jax.grad` returns.
    """
    A = G @ X.conj().T - X @ G.conj().T
    return cayley(rate / 2 * A) @ X
