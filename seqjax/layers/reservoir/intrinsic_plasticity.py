"""Intrinsic plasticity: gains and shifts of a reservoir by which its units use their range
(Schrauwen, Wardermann, Verstraeten, Steil & Stroobandt 2008, Improving reservoirs using intrinsic
plasticity; for the sigmoid Triesch 2005).

Gradient descent, after every step, on the divergence of the distribution of each y from a normal
one of mean mu and deviation sigma (tanh), or an exponential one of mean mu (sigmoid):

    tanh       db = mu / sigma^2 - y / sigma^2 (2 sigma^2 + 1 - y^2 + mu y)
    sigmoid    db = 1 - (2 + 1 / mu) y + y^2 / mu
    da = 1 / a + db z,  a <- a + rate da,  b <- b + rate db      gain a, shift b of y = f(a z + b)
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from seqjax.layers.reservoir.esn import ESN
from seqjax.nn.base import Frozen, cast_parameters


class Adapted(NamedTuple):
    gain: Array  # [T, hidden], after each step
    shift: Array  # [T, hidden]
    y: Array  # [T, hidden], by those before it


def intrinsic_plasticity(
    esn: ESN, x: Array, *, mu: float = 0.0, sigma: float = 1.0, rate: float = 5e-4
) -> Adapted:
    """Adapt the gains and shifts of a `plastic` reservoir, in place, to one series x [T, features].

    Raises ValueError for a reservoir that is not plastic, another f, and a mu that is not above 0
    with the sigmoid. Returns how they went.
    """
    if esn.gain is None or esn.shift is None:
        raise ValueError("intrinsic plasticity is of an esn with plastic=True")
    if esn.activation == "tanh":
        slope = lambda y: mu / sigma**2 - y / sigma**2 * (2 * sigma**2 + 1 - y * y + mu * y)  # noqa: E731
    elif esn.activation == "sigmoid":
        if mu <= 0:
            raise ValueError(f"the mean mu of a sigmoid's output is {mu}, expected above 0")
        slope = lambda y: 1 - (2 + 1 / mu) * y + y * y / mu  # noqa: E731
    else:
        raise ValueError("intrinsic plasticity is of tanh and sigmoid")
    working = cast_parameters(esn, x.dtype)
    leak, W = working.a[...], working.W[...]

    def step(carry, driven):
        z, y, a, b = carry
        z = (1 - leak) * z + leak * (W @ y + driven)
        y = esn.f(a * z + b)
        db = slope(y)
        a, b = a + rate * (1 / a + db * z), b + rate * db
        return (z, y, a, b), Adapted(a, b, y)

    z = jnp.zeros_like(leak)
    # as released, the first step finds an output of zero, also of a sigmoid
    start = z, z, esn.gain[...].astype(z.dtype), esn.shift[...].astype(z.dtype)
    found = lax.scan(step, start, working.drive(x))[1]
    esn.gain = Frozen(found.gain[-1].astype(esn.gain.dtype))
    esn.shift = Frozen(found.shift[-1].astype(esn.shift.dtype))
    return found
