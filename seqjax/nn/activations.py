"""Functions that modules keep.

Those of jax.nn are compiled, and what is compiled cannot be pickled.
"""

import jax
import jax.numpy as jnp
from jax import Array


def gelu(x: Array) -> Array:
    """x Phi(x), exactly (arXiv:1606.08415); jax.nn.gelu is by default its approximation by tanh."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: Array) -> Array:
    """gelu by its approximation, x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    return jax.nn.gelu(x, approximate=True)


def silu(x: Array) -> Array:
    """x sigmoid(x)."""
    return jax.nn.silu(x)


def sigmoid(x: Array) -> Array:
    return jax.nn.sigmoid(x)


def relu(x: Array) -> Array:
    return jax.nn.relu(x)


def relu2(x: Array) -> Array:
    """relu(x)^2 (arXiv:2109.08668)."""
    return jnp.square(jax.nn.relu(x))


def identity(x: Array) -> Array:
    return x
