"""Long expressive memory, LEM (Rusch et al. 2022, arXiv:2110.04744).

    d_n = dt sigmoid(W_1 y_{n-1} + V_1 u_n + b_1)                                       eq. 3
    e_n = dt sigmoid(W_2 y_{n-1} + V_2 u_n + b_2)                the paper's d_n with a bar
    z_n = (1 - d_n) * z_{n-1} + d_n * tanh(W_z y_{n-1} + V_z u_n + b_z)
    y_n = (1 - e_n) * y_{n-1} + e_n * tanh(W_y z_n + V_y u_n + b_y)                 y, z [hidden]

An implicit-explicit step of two equations whose time scales are learned, and differ by unit and
input: for data of many scales. With dt at most 1 both states stay within [-1, 1].

Rows of W and V are stacked in the order of the equations. The release has two biases for each of
the first three blocks, which add to one here, and crosses the names of its blocks z and y. All
start uniform within 1 / sqrt(hidden) of 0, as it has them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.initialisation import recurrent_weights, within
from seqjax.nn.recurrent import Recurrent


class LEMState(NamedTuple):
    y: jax.Array  # [hidden], the output
    z: jax.Array  # [hidden]


class LEM(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        dt: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features, self.dt = features, dt
        H = self.out_features = hidden or features
        start = within(H**-0.5)
        self.V = nnx.Linear(features, 4 * H, kernel_init=start, bias_init=start, rngs=rngs)
        self.W = nnx.Param(recurrent_weights(H, 3, init="uniform", rngs=rngs))  # 1, 2, z
        self.W_y = nnx.Param(recurrent_weights(H, init="uniform", rngs=rngs))

    def initial(self):
        return LEMState(*(jnp.zeros(self.out_features) for _ in range(2)))

    def drive(self, x):
        return self.V(x)  # carries the biases

    def step(self, h, u):
        n = 3 * self.out_features
        first, second, new = jnp.split(u[:n] + self.W @ h.y, 3)
        d, e = self.dt * jax.nn.sigmoid(first), self.dt * jax.nn.sigmoid(second)
        z = (1 - d) * h.z + d * jnp.tanh(new)
        return LEMState((1 - e) * h.y + e * jnp.tanh(u[n:] + self.W_y @ z), z)

    def readout(self, h, x):
        return h.y
