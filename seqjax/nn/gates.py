"""Gate maps: where the eigenvalues of a transition may lie.

"[0,1]" only forgets; "[-1,1]" may also flip, which is what parity and, for products of reflections,
permutations need (arXiv:2411.12537, sec. 4). It is one line in the gate, never another layer.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from seqjax.core.flow import takes_flow
from seqjax.core.monoid import total
from seqjax.core.scan import scan
from seqjax.ops.heads import share_heads
from seqjax.ops.linear_attention import linear_attention

EIGENVALUES = ("[0,1]", "[-1,1]")


def multiplier(s: Array, eigenvalues: str) -> Array:
    """The diagonal multiplier a of a gate s in [0, 1]: s itself, or 2 s - 1."""
    return 2 * s - 1 if eigenvalues == "[-1,1]" else s


def decay(log_s: Array, eigenvalues: str) -> Array:
    """The same of a gate s = exp(log_s)."""
    return multiplier(jnp.exp(log_s), eigenvalues)


def one_minus_square(log_s: Array, eigenvalues: str) -> Array:
    """1 - a^2 for that multiplier, without cancellation near |a| = 1."""
    if eigenvalues == "[-1,1]":
        return -4 * jnp.exp(log_s) * jnp.expm1(log_s)
    return -jnp.expm1(2 * log_s)


def negative_bound(bound: float | None) -> float | None:
    """A lower bound of log alpha, or one error."""
    if bound is not None and not bound < 0:
        raise ValueError(f"lower_bound of log alpha is {bound}, expected below 0")
    return bound


def log_decay(
    dt: Array,
    A_log: Array | None = None,
    dt_bias: Array | None = None,
    *,
    lower_bound: float | None = None,
) -> Array:
    """log alpha = -exp(A_log) softplus(dt + dt_bias) of dt [T, H] or [T, H, K], A_log [H] or None
    (exp of it is 1), dt_bias [H] or [H, K]: the decay of Mamba-2, per head or per key.

    With a lower bound c < 0 it is c sigmoid(exp(A_log) (dt + dt_bias)): alpha in (exp c, 1).
    """
    if dt_bias is not None:
        dt = dt + dt_bias[None]
    rate = jnp.ones((1,) * dt.ndim, dt.dtype)
    if A_log is not None:
        rate = jnp.exp(A_log).reshape(1, -1, *(1,) * (dt.ndim - 2))
    if lower_bound is not None:
        return lower_bound * jax.nn.sigmoid(rate * dt)
    return -rate * jax.nn.softplus(dt)


def step_size(logits: Array, eigenvalues: str) -> Array:
    """beta of a step I - beta k k^T with |k| = 1: its eigenvalue along k is 1 - beta."""
    beta = jax.nn.sigmoid(logits)
    return 2 * beta if eigenvalues == "[-1,1]" else beta


@takes_flow
def signed_linear_attention(
    q: Array,
    k: Array,
    v: Array,
    log_s: Array,
    state: Array,
    *,
    eigenvalues: str,
    resets: Array | None,
    mask: Array | None,
    **options: Any,
) -> tuple[Array, Array]:
    """`linear_attention` of one example with the decay of a gate log_s [T, H] or [T, H, K].

    Negative decays need no other recurrence: with sigma_t the product of the signs so far,
    sigma_t S_t obeys the recurrence of |a|, in which k and q are written and read as sigma_t k_t
    and sigma_t q_t.
    """
    options |= dict(resets=resets, mask=mask)
    if eigenvalues == "[0,1]":
        return linear_attention(q, k, v, log_s, state, **options)
    a = decay(log_s, eigenvalues)
    away = jnp.where(a < 0, -2 * jnp.exp(log_s), 2 * jnp.expm1(log_s))  # |a| - 1, exact near 0
    log_a = jnp.log1p(jnp.maximum(away, jnp.finfo(away.dtype).epsneg - 1))
    flips = (a < 0).astype(jnp.int32).reshape(*a.shape[:2], -1)
    flags = dict(resets=resets, mask=mask, axis=options.get("axis"))
    sigma, sigma_T = (
        (1 - 2 * (count % 2)).astype(q.dtype)
        for count in scan(total, flips, jnp.zeros(flips.shape[1:], jnp.int32), **flags)
    )
    heads, name = a.shape[1], "linear_attention"
    q, k = share_heads(name, "q", q, heads, reads=True), share_heads(name, "k", k, heads)
    read = jnp.repeat(sigma, q.shape[1] // heads, axis=1)
    y, last = linear_attention(read * q, sigma * k, v, log_a, state, **options)
    return y, sigma_T.astype(last.dtype)[..., None] * last
