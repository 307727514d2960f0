"""Elman network (Elman 1990), the vanilla recurrent network.

    h_t = (1 - leak) h_{t-1} + leak f(W x_t + U h_{t-1} + b)         h [hidden], leak 1
    y_t = g(C h_t + D x_t)                                           g the identity

C is there with `outputs`, to that many; without, it is the identity. D is there with `feedthrough`.
f (`activation`) and g (`output_activation`) are tanh, relu, sigmoid or linear. A leak in (0, 1] is
an Euler step of that length of h' = -h + f(W x + U h + b). torch.nn.RNN has a second bias, which
adds nothing but its sum with b; `bias` False takes b out. U starts orthogonal, or as
`recurrent_init` has it (`seqjax.nn.initialisation`), times `recurrent_scale`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import option
from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "linear": lambda x: x,
}


class Elman(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        activation: str = "tanh",
        leak: float = 1.0,
        outputs: int | None = None,
        output_activation: str = "linear",
        feedthrough: bool = False,
        bias: bool = True,
        recurrent_init: str = "orthogonal",
        recurrent_scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features = features
        if not 0 < leak <= 1:
            raise ValueError(f"leak is a step in (0, 1], got {leak}")
        H = self.hidden = hidden or features
        self.leak, self.out_features = leak, outputs or H
        self.activation = option("activation", activation, ACTIVATIONS)
        self.output_activation = option("output_activation", output_activation, ACTIVATIONS)
        self.W = nnx.Linear(features, H, use_bias=bias, rngs=rngs)  # carries b
        self.U = nnx.Param(
            recurrent_weights(H, init=recurrent_init, scale=recurrent_scale, rngs=rngs)
        )

        def linear(n):
            return nnx.Linear(n, self.out_features, use_bias=False, rngs=rngs)

        self.C = linear(H) if outputs else None
        self.D = linear(features) if feedthrough else None

    def initial(self):
        return jnp.zeros(self.hidden)

    def drive(self, x):
        return self.W(x)

    def step(self, h, z):
        new = ACTIVATIONS[self.activation](z + self.U @ h)
        return new if self.leak == 1 else (1 - self.leak) * h + self.leak * new

    def readout(self, h, x):
        y = h if self.C is None else self.C(h)
        y = y if self.D is None else y + self.D(x)
        return ACTIVATIONS[self.output_activation](y)
