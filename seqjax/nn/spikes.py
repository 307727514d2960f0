"""Spikes: a threshold that has a derivative, and how often a neuron fires.

spike(u) = 1 if u > 0, else 0; in derivatives, with a slope k,

fast_sigmoid    1 / (1 + k |u|)^2                   SuperSpike, arXiv:1705.11146 eq. 4
atan            k / 2 / (1 + (pi k u / 2)^2)        arXiv:2007.05785
none            0
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

SURROGATES: dict[str, tuple[float, Callable[[Array, float], Array]]] = {
    "fast_sigmoid": (25.0, lambda u, k: 1 / (1 + k * jnp.abs(u)) ** 2),
    "atan": (2.0, lambda u, k: k / 2 / (1 + (jnp.pi / 2 * k * u) ** 2)),
    "none": (1.0, lambda u, k: jnp.zeros_like(u)),
}
"""The slope where none is given, and the derivative."""


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def spike(u: Array, surrogate: str, slope: float) -> Array:
    return (u > 0).astype(u.dtype)


@spike.defjvp
def _spike_jvp(surrogate, slope, primals, tangents):
    (u,), (du,) = primals, tangents
    return spike(u, surrogate, slope), SURROGATES[surrogate][1](u, slope) * du


def firing_rate(
    current: Array, *, tau: float, resistance: float, threshold: float, refractory: float
) -> Array:
    """Spikes per second of a leaky integrate-and-fire neuron under a constant current, in closed
    form: 1 / (t_ref + tau log(R I / (R I - V_th))) where R I > V_th, 0 elsewhere."""
    driven = resistance * current
    fires = driven > threshold
    driven = jnp.where(fires, driven, 2 * threshold)
    period = refractory - tau * jnp.log1p(-threshold / driven)
    return jnp.where(fires, 1 / period, 0)
