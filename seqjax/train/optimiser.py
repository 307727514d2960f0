"""AdamW (arXiv:1711.05101), its schedule, and which parameters decay.

The learning rate of step n, counted from 0, at a share f in [0, 1] of the run is

    peak * min(1, (n + 1) / warmup) * (final + (1 - final) * shape(f))

The share is handed in by the caller: n / steps, or of the time there is.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from seqjax.nn import Precise
from seqjax.nn.base import option
from seqjax.train.config import OptimiserConfig

SHAPES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "cosine": lambda f: 0.5 * (1 + jnp.cos(jnp.pi * f)),
    "linear": lambda f: 1 - f,
    "constant": jnp.ones_like,
}


def learning_rate(config: OptimiserConfig, step: jax.Array, share: jax.Array) -> jax.Array:
    shape = SHAPES[option("schedule", config.schedule, SHAPES)]
    warm = jnp.minimum((step + 1).astype(share.dtype) / max(1, config.warmup), 1)
    return config.learning_rate * warm * (config.final + (1 - config.final) * shape(share))


def adamw(config: OptimiserConfig, decays: dict[str, bool]) -> optax.GradientTransformation:
    """AdamW up to its learning rate: the update is -learning_rate times what it gives."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.scale_by_adam(config.beta1, config.beta2),
        optax.add_decayed_weights(config.weight_decay, decays),
    )


def decays(path: tuple, variable: nnx.Variable) -> bool:
    """Whether a parameter is a matrix that should be small: no scale, bias, decay or time step.

    The blocks of a model are stacked, so their parameters have one axis more than they say.
    """
    stacked = "blocks" in path[:2]  # of the model, or of its encoder
    return not isinstance(variable, Precise) and variable.get_value().ndim - stacked > 1
