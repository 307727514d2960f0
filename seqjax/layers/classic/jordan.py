"""Jordan network (Jordan 1986): the output, not the hidden layer, is fed back.

    h_t = f(W x_t + U s_{t-1} + b)                            h [hidden]
    y_t = g(V h_t + c)                                        y [outputs]
    s_t = trace s_{t-1} + y_t                                 s [outputs], the state units

W x are Jordan's plan units, s his state units; `trace` in [0, 1) is their connection to themselves
(his mu), 0 for s = y. f (`activation`) and g (`output_activation`) are those of `elman`, the
network this is with V folded into U where g is linear and trace is 0. What is remembered is what
was answered: for motor plans and series whose outputs are the state of the world, and poor where
something must be kept that no output shows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.elman import ACTIVATIONS
from seqjax.nn.base import option
from seqjax.nn.recurrent import Recurrent


class JordanState(NamedTuple):
    y: jax.Array  # [outputs]
    s: jax.Array  # [outputs]


class Jordan(Recurrent):
    """The state is y, or JordanState(y, s) with a trace."""

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        outputs: int | None = None,
        activation: str = "tanh",
        output_activation: str = "linear",
        trace: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.features, self.trace = features, trace
        self.out_features = outputs or features
        self.activation = option("activation", activation, ACTIVATIONS)
        self.output_activation = option("output_activation", output_activation, ACTIVATIONS)
        H = hidden or features
        self.W = nnx.Linear(features, H, rngs=rngs)  # carries b
        self.U = nnx.Linear(self.out_features, H, use_bias=False, rngs=rngs)
        self.V = nnx.Linear(H, self.out_features, rngs=rngs)  # carries c
        self.parts_of_state = 2 if trace else 1

    def initial(self):
        y = jnp.zeros(self.out_features)
        return JordanState(y, y) if self.trace else y

    def drive(self, x):
        return self.W(x)

    def step(self, state, z):
        s = state.s if self.trace else state
        h = ACTIVATIONS[self.activation](z + self.U(s))
        y = ACTIVATIONS[self.output_activation](self.V(h))
        return JordanState(y, self.trace * s + y) if self.trace else y

    def readout(self, state, x):
        return state.y if self.trace else state
