"""Steps of a differential equation h' = f(s, h): from h at s to h at s + ds."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def euler(f, s, ds, h):
    return h + ds * f(s, h)


def midpoint(f, s, ds, h):
    return h + ds * f(s + ds / 2, h + ds / 2 * f(s, h))


def rk4(f, s, ds, h):
    a = f(s, h)
    b = f(s + ds / 2, h + ds / 2 * a)
    c = f(s + ds / 2, h + ds / 2 * b)
    d = f(s + ds, h + ds * c)
    return h + ds / 6 * (a + 2 * b + 2 * c + d)


def rk38(f, s, ds, h):
    """Kutta's 3/8 rule, of order 4: what torchdiffeq has under the name rk4."""
    a = f(s, h)
    b = f(s + ds / 3, h + ds / 3 * a)
    c = f(s + 2 * ds / 3, h + ds * (b - a / 3))
    d = f(s + ds, h + ds * (a - b + c))
    return h + ds / 8 * (a + 3 * (b + c) + d)


SOLVERS: dict[str, Callable[..., jax.Array]] = dict(
    euler=euler, midpoint=midpoint, rk4=rk4, rk38=rk38
)


def integrate(
    f: Callable[[jax.Array, jax.Array], jax.Array],
    h: jax.Array,
    dt: jax.Array,
    *,
    solver: str,
    substeps: int = 1,
) -> jax.Array:
    """h at s = dt, from h at s = 0, in so many equal steps of h' = f(s, h)."""
    ds = dt / substeps

    def substep(h, s):
        return SOLVERS[solver](f, s, ds, h).astype(h.dtype), None

    if substeps == 1:
        return substep(h, jnp.zeros_like(dt))[0]
    return lax.scan(substep, h, jnp.arange(substeps, dtype=ds.dtype) * ds)[0]
