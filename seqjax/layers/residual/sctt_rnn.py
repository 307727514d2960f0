"""Skip connections through time (Soo, Goudar & Wang 2023, PMC10592728): a state sees one long past.

    h_t = (1 - leak) h_{t-1} + leak f(W x_t + U h_{t-1} + b) + s (h_{t-tau} - h_{t-1})    h [hidden]
    y_t = h_t

A rate network of neuroscience, r' = -r + f(W_rec r + W_in x + b) in steps of `leak`, f = relu, with
a path of length T / tau for an error to go back T steps, where each step alone shrinks it. tau is
`skip`, in steps, s is `strength`; h_{t-tau} before there is one is the start. The paper adds the
path for training, and reverts to the plain network afterwards: `strength` 0 is that, an `elman`
with a leak, of the same parameters. The state is the last tau h, [skip, hidden], the oldest first.

The abstract has the skip in words; that it enters as a sum of weights 1 with h is our reading.
"""

import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.elman import ACTIVATIONS
from seqjax.nn.base import option
from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent


class SCTTRNN(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        skip: int = 10,
        strength: float = 0.5,
        leak: float = 0.2,
        activation: str = "relu",
        recurrent_init: str = "orthogonal",
        recurrent_scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features, self.skip, self.strength, self.leak = features, skip, strength, leak
        self.activation = option("activation", activation, ACTIVATIONS)
        H = self.out_features = hidden or features
        self.W = nnx.Linear(features, H, rngs=rngs)  # carries b
        U = recurrent_weights(H, init=recurrent_init, scale=recurrent_scale, rngs=rngs)
        self.U = nnx.Param(U)

    def initial(self):
        return jnp.zeros((self.skip, self.out_features))

    def drive(self, x):
        return self.W(x)

    def step(self, past, z):
        h = past[-1]
        new = h + self.leak * (ACTIVATIONS[self.activation](z + self.U @ h) - h)
        new = new + self.strength * (past[0] - h)
        return jnp.concatenate([past[1:], new[None]])

    def readout(self, past, x):
        return past[-1]
