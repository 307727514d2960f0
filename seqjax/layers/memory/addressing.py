"""Where the heads of an external memory look: of one memory M [N, W], N cells of W numbers.

A weighting w is [N], at least 0, of sum at most 1; heads are rows, [R, N]. By content, and what is
written there: arXiv:1410.5401, sec. 3.1 to 3.3, and Graves et al., Nature 538 (2016), Methods. By
location: `shift` and `sharpen` of the first, usage and links of the second.
"""

import jax
import jax.numpy as jnp
from jax import lax


def length(v: jax.Array, eps: float) -> jax.Array:
    """sqrt(|v|^2 + eps) of rows, [..]; its gradient at v = 0 is 0, also without eps."""
    square = jnp.sum(v * v, axis=-1) + eps
    some = square > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)


def cosine(k: jax.Array, M: jax.Array, eps: float, inside: float = 0.0) -> jax.Array:
    """k M_n / (|k| |M_n| + eps), [R, N]; with `inside`, lengths are sqrt(|.|^2 + inside)."""
    return (k @ M.T) / (length(k, inside)[:, None] * length(M, inside)[None] + eps)


def content(
    k: jax.Array, beta: jax.Array, M: jax.Array, eps: float, inside: float = 0.0
) -> jax.Array:
    """softmax_n(beta cosine(k, M_n)), [R, N]; beta [R]."""
    return jax.nn.softmax(beta[:, None] * cosine(k, M, eps, inside), axis=1)


def erase_and_add(M: jax.Array, w: jax.Array, e: jax.Array, a: jax.Array) -> jax.Array:
    """M_n prod_h (1 - w_hn e_h) + sum_h w_hn a_h: all heads erase, then all add; e, a [H, W]."""
    kept = jnp.prod(1 - w[:, :, None] * e[:, None], axis=0)
    return M * kept + w.T @ a


def shift(w: jax.Array, s: jax.Array) -> jax.Array:
    """sum_j s_j w_{n + j - K // 2}, around the circle, [R, N]; s [R, K].

    s_0 moves the weighting to the right the furthest, by K // 2 cells.
    """
    middle = s.shape[1] // 2
    turned = [s[:, j : j + 1] * jnp.roll(w, middle - j, axis=1) for j in range(s.shape[1])]
    return sum(turned[1:], turned[0])


def sharpen(w: jax.Array, gamma: jax.Array) -> jax.Array:
    """w_n^gamma / sum_m w_m^gamma, [R, N]; gamma [R], at least 1.

    In shares of the largest w: of their powers the largest is 1, so that no sum is ever 0.
    """
    share = w / lax.stop_gradient(jnp.max(w, axis=1, keepdims=True))
    power = share ** gamma[:, None]
    return power / jnp.sum(power, axis=1, keepdims=True)


def usage(u: jax.Array, w_w: jax.Array, f: jax.Array, w_r: jax.Array) -> jax.Array:
    """(u + (1 - u) (1 - prod_h (1 - w^w_hn))) prod_i (1 - f_i w^r_in), [N]: of the step before are
    u [N], w^w [H, N] and w^r [R, N]; f [R], free gates."""
    written = 1 - jnp.prod(1 - w_w, axis=0)
    kept = jnp.prod(1 - f[:, None] * w_r, axis=0)
    return (u + (1 - u) * written) * kept


def allocation(u: jax.Array, eps: float) -> jax.Array:
    """a_{phi_j} = (1 - u_{phi_j}) prod_{i < j} u_{phi_i}, [N], of u = eps + (1 - eps) u.

    phi sorts the cells by their usage, those used as much by their place. The gradient is that of
    the products; where the order changes they jump, which is ignored, as in the paper.
    """
    u = eps + (1 - eps) * u
    phi = jnp.argsort(u)
    free = u[phi]
    before = jnp.cumprod(jnp.concatenate([jnp.ones_like(free[:1]), free[:-1]]))
    return jnp.zeros_like(u).at[phi].set((1 - free) * before)


def allocations(u: jax.Array, gates: jax.Array, eps: float) -> jax.Array:
    """Of several write heads, [H, N]: each finds used what those before it take, gates [H]."""
    found = []
    for gate in gates:
        found.append(allocation(u, eps))
        u = u + (1 - u) * gate * found[-1]
    return jnp.stack(found)


def link(L: jax.Array, p: jax.Array, w: jax.Array) -> jax.Array:
    """(1 - w_i - w_j) L_ij + w_i p_j and zeros on the diagonal, [H, N, N]: how much cell i was
    written right after cell j. p, the precedence before, and w are [H, N]."""
    L = (1 - w[:, :, None] - w[:, None]) * L + w[:, :, None] * p[:, None]
    return jnp.where(jnp.eye(w.shape[1], dtype=bool)[None], 0, L)


def precedence(p: jax.Array, w: jax.Array) -> jax.Array:
    """(1 - sum_n w_n) p + w, [H, N]: how much a cell was the last one written."""
    return (1 - jnp.sum(w, axis=1, keepdims=True)) * p + w


def follow(L: jax.Array, w_r: jax.Array) -> tuple[jax.Array, jax.Array]:
    """b = L^T w^r and f = L w^r, [R, H, N] each: the cells written before and after."""
    return jnp.einsum("hij,ri->rhj", L, w_r), jnp.einsum("hij,rj->rhi", L, w_r)
