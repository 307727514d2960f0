"""Neural wave machine (Keller & Welling 2023, ICML).

    z_t = z_{t-1} + dt (tanh(a_t + V x_t + b) - gamma y_{t-1} - epsilon z_{t-1})
    y_t = y_{t-1} + dt z_t,   a_t = w_y * y_{t-1} + w_z * z_{t-1}           y, z [sites, sites]

A network of coupled oscillators (`cornn`) on a torus, in which each sees its neighbours only: * is
a circular convolution with kernels [kernel_size, kernel_size], and a bias each. Inputs drive waves
over the torus: hidden states that are structured in space, for smooth transformations in time.
All starts as torch has it, uniform within 1 / sqrt(inputs of the map) of 0.
"""

import jax.numpy as jnp
from flax import nnx

from seqjax.layers.ode.cornn import CoRNN
from seqjax.layers.ode.wave_rnn import neighbours, odd
from seqjax.nn.initialisation import within


class NeuralWaveMachine(CoRNN):
    def __init__(
        self,
        features: int,
        *,
        sites: int = 16,
        kernel_size: int = 3,
        dt: float = 0.042,
        gamma: float = 2.7,
        epsilon: float = 4.7,
        damping: str = "explicit",
        rngs: nnx.Rngs,
    ):
        self.sites, self.kernel_size = sites, odd(kernel_size)
        super().__init__(
            features,
            hidden=sites**2,
            dt=dt,
            gamma=gamma,
            epsilon=epsilon,
            damping=damping,
            rngs=rngs,
        )

    def couple(self, rngs):
        k = self.kernel_size
        start = within(1 / k)
        self.w_y, self.w_z = (nnx.Param(start(rngs.params(), (k**2,))) for _ in range(2))
        self.b_y, self.b_z = (nnx.Param(start(rngs.params(), ())) for _ in range(2))
        return self.features

    def coupling(self, h):
        maps = ((self.w_y, self.b_y, h.y), (self.w_z, self.b_z, h.z))
        return sum(self.convolve(w[...], part) + b for w, b, part in maps)

    def convolve(self, w, part):
        torus = part.reshape(self.sites, self.sites)
        return jnp.tensordot(w, neighbours(torus, self.kernel_size, 2), 1).reshape(part.shape)
