"""Elman network (Elman 1990), the vanilla recurrent network.

    h_t = f(W x_t + U h_{t-1} + b)          h [hidden]
    y_t = h_t + D x_t                       D only with `feedthrough`

f is tanh or relu. torch.nn.RNN has a second bias, which adds nothing but its sum with b. U starts
orthogonal, or as `recurrent_init` says (`initial.py`), times `recurrent_scale`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.base import Recurrent, option
from seqjax.layers.classic.initial import recurrent_weights

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


class Elman(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        activation: str = "tanh",
        feedthrough: bool = False,
        recurrent_init: str = "orthogonal",
        recurrent_scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.activation = option("activation", activation, ACTIVATIONS)
        self.W = nnx.Linear(features, H, rngs=rngs)  # carries b
        self.U = nnx.Param(
            recurrent_weights(H, init=recurrent_init, scale=recurrent_scale, rngs=rngs)
        )
        self.D = nnx.Linear(features, H, use_bias=False, rngs=rngs) if feedthrough else None

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.W(x)

    def step(self, h, z):
        return ACTIVATIONS[self.activation](z + self.U @ h)

    def readout(self, h, x):
        return h if self.D is None else h + self.D(x)
