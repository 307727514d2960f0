"""How recurrent weights, gate biases and time steps are drawn.

orthogonal   U U' = I: no direction of the state shrinks or grows at first (arXiv:1312.6120)
identity     U = I: with relu the IRNN of arXiv:1504.00941
glorot       independent normal entries of variance 1 / hidden: a spectral radius near 1
uniform      independent entries within 1 / sqrt(hidden) of 0, as torch has them: a spectral radius
             near 0.58
chrono       forget and input biases b_f = log(U[1, T_max - 1]), b_i = -b_f: what a unit forgets
             in is spread over the time scales up to T_max (arXiv:1804.11188)
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.nn.base import option
from seqjax.nn.linear import per_head

RECURRENT = {
    "orthogonal": nnx.initializers.orthogonal(),
    "identity": lambda key, shape: jnp.eye(*shape),
    "glorot": nnx.initializers.glorot_normal(),
    "uniform": nnx.initializers.variance_scaling(1 / 3, "fan_avg", "uniform"),
}


def recurrent_weights(
    hidden: int,
    blocks: int = 1,
    *,
    columns: int | None = None,
    heads: int | None = None,
    init: str,
    scale: float = 1.0,
    rngs: nnx.Rngs,
) -> Array:
    """[blocks * hidden, columns]: blocks, square by default, each drawn alike and times `scale`;
    of so many heads [blocks, heads, size, size], as `recurrent` takes them."""
    draw = RECURRENT[option("recurrent_init", init, RECURRENT)]
    if heads is not None:
        size = per_head("hidden", hidden, heads)
        drawn = [draw(rngs.params(), (size, size)) for _ in range(blocks * heads)]
        return scale * jnp.stack(drawn).reshape(blocks, heads, size, size)
    shape = (hidden, columns or hidden)
    return scale * jnp.concatenate([draw(rngs.params(), shape) for _ in range(blocks)])


def recurrent(U: Array, h: Array) -> Array:
    """U h, block after block; of heads h is [heads, size], and each sees itself only."""
    return U @ h if U.ndim == 2 else jnp.einsum("bgij,gj->bgi", U, h).reshape(-1)


def within(bound: float) -> nnx.Initializer:
    """Uniform from -bound to bound; with 1 / sqrt(inputs), as torch starts a linear map."""

    def draw(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def chrono(u: Array, longest: float | Array) -> Array:
    """The forget bias of time scales up to `longest`, for u uniform in [0, 1)."""
    return jnp.log1p(u * (longest - 2))


def gate_bias(key: Array, hidden: int, forget: float, longest: float | None) -> Array:
    """b_f [hidden]: the constant `forget`, or chrono up to `longest` if it is given."""
    if longest is None:
        return jnp.full(hidden, forget)
    if longest < 2:
        raise ValueError(f"time scales lie between 1 and chrono - 1 >= 1, got chrono={longest}")
    return chrono(jax.random.uniform(key, (hidden,)), longest)


def time_step_bias(key: Array, size: int, low: float, high: float, floor: float = 1e-4) -> Array:
    """b with softplus(b) log-uniform in [low, high]: how the Mamba family starts its time steps."""
    dt = jnp.exp(jax.random.uniform(key, (size,), minval=math.log(low), maxval=math.log(high)))
    dt = jnp.maximum(dt, floor)
    return dt + jnp.log(-jnp.expm1(-dt))
