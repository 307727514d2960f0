"""Coupled oscillatory recurrent network, coRNN (Rusch & Mishra 2021, arXiv:2010.00951).

    y'' = tanh(W y + W_z y' + V u + b) - gamma y - epsilon y'                           eq. 1
    z_n = z_{n-1} + dt (tanh(W y_{n-1} + W_z z_{n-1} + V u_n + b) - gamma y_{n-1} - epsilon z_k)
    y_n = y_{n-1} + dt z_n                                          y, z [hidden]       eq. 3

`hidden` coupled, damped and driven oscillators. k = n - 1 with `damping` "explicit", the released
code's, and k = n with "implicit", for which z_n = (..) / (1 + dt epsilon). For sequences of
hundreds to thousands of steps: small steps dt keep states and gradients bounded (prop. 3.1).

gamma, epsilon and dt are those of the release's sequential MNIST. W, W_z, V and b start as it has
them, uniform within 1 / sqrt(features + 2 hidden) of 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import option
from seqjax.nn.initialisation import within
from seqjax.nn.recurrent import Recurrent

DAMPINGS = ("explicit", "implicit")


class Oscillators(NamedTuple):
    y: jax.Array  # [hidden], the output
    z: jax.Array  # [hidden], its velocity


class CoRNN(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        dt: float = 0.042,
        gamma: float = 2.7,
        epsilon: float = 4.7,
        damping: str = "explicit",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.dt, self.gamma, self.epsilon = dt, gamma, epsilon
        self.damping = option("damping", damping, DAMPINGS)
        start = within(self.couple(rngs) ** -0.5)
        self.V = nnx.Linear(features, H, kernel_init=start, bias_init=start, rngs=rngs)  # carries b

    def couple(self, rngs: nnx.Rngs) -> int:
        """The parameters of `coupling`; how many inputs the map has that V is of."""
        H, inputs = self.out_features, self.features + 2 * self.out_features
        start = within(inputs**-0.5)
        self.W, self.W_z = (nnx.Param(start(rngs.params(), (H, H))) for _ in range(2))
        return inputs

    def coupling(self, h: Oscillators) -> jax.Array:
        """What the oscillators do to one another, [hidden]."""
        return self.W @ h.y + self.W_z @ h.z

    def initial(self):
        return Oscillators(*(jnp.zeros(self.out_features) for _ in range(2)))

    def drive(self, x):
        return self.V(x)

    def step(self, h, z):
        force = jnp.tanh(z + self.coupling(h)) - self.gamma * h.y
        if self.damping == "explicit":
            velocity = h.z + self.dt * (force - self.epsilon * h.z)
        else:
            velocity = (h.z + self.dt * force) / (1 + self.dt * self.epsilon)
        return Oscillators(h.y + self.dt * velocity, velocity)

    def readout(self, h, x):
        return h.y
