"""Special functions that likelihoods are made of."""

from __future__ import annotations

from math import log, pi

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

FAR = 10.0  # from where on Stirling's series is exact to float64
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


def log_beta(a: jax.Array, b: jax.Array) -> jax.Array:
    """log B(a, b) = log G(a) + log G(b) - log G(a + b), which does not cancel at large a or b.

    As TOMS algorithm 708 (Didonato & Morris 1992): with log G(x) = (x - 1/2) log x - x + c + s(x),
    p <= q and q large,

        log G(q) - log G(p + q) = p - p log q - (p + q - 1/2) log(1 + p / q) + s(q) - s(p + q)

    (`jax.scipy.special.betaln` is off by 1e-6 from b = 8 on, in float64 too: docs/upstream.md.)
    """
    p, q = jnp.minimum(a, b), jnp.maximum(a, b)
    near = gammaln(p) + gammaln(q) - gammaln(p + q)
    q_far, p_far = jnp.maximum(q, FAR), jnp.maximum(p, FAR)

    def apart(p):
        return -(p + q_far - 0.5) * jnp.log1p(p / q_far) + _stirling(q_far) - _stirling(p + q_far)

    one_far = gammaln(p) + p - p * jnp.log(q_far) + apart(p)
    both_far = (p_far - 0.5) * jnp.log(p_far / q_far) - jnp.log(q_far) / 2 + log(2 * pi) / 2
    both_far = both_far + _stirling(p_far) + apart(p_far)
    return jnp.where(q < FAR, near, jnp.where(p < FAR, one_far, both_far))


def _stirling(x: jax.Array) -> jax.Array:
    """s(x) of log G(x)."""
    series = jnp.zeros_like(x)
    for c in reversed(STIRLING):
        series = series / x**2 + c
    return series / x
