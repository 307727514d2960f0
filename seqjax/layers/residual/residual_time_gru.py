"""Residual-time gated recurrent unit (RT-GRU, Neurocomputing 2025, S0925231225000682): a GRU whose
candidate has a gated path to the state before.

    z_t, r_t as in `gru`
    g_t = sigmoid(W_g x_t + U_g h_{t-1} + b_g)                        the highway gate
    n_t = tanh(W_n x_t + U_n (r_t * h_{t-1}) + b_n) + g_t * h_{t-1}
    h_t = z_t * h_{t-1} + (1 - z_t) * n_t = y_t                       h [hidden]

dn_t/dh_{t-1} has a part, g_t, that no tanh saturates. What is public of the paper is its abstract:
residual information in the candidate, a residual connection through time, highway gates on what
flows in it. The equations here are our reading of that, and of low trust; |h| is not bounded by 1.

Rows of W and b are stacked in the order r, z, g, n, and of U too; b_g starts at -2, so that it
begins near a GRU. U starts orthogonal, block by block, or by `recurrent_init`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent


class ResidualTimeGRU(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        highway_bias: float = -2.0,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features

        def bias(key, shape, dtype):
            return jnp.zeros(shape, dtype).at[2 * H : 3 * H].set(highway_bias)

        self.W = nnx.Linear(features, 4 * H, bias_init=bias, rngs=rngs)  # carries b
        self.U = nnx.Param(recurrent_weights(H, 4, init=recurrent_init, rngs=rngs))

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.W(x)

    def step(self, h, a):
        n = 3 * self.out_features  # where the rows of n begin
        r, z, g = jnp.split(jax.nn.sigmoid(a[:n] + self.U[:n] @ h), 3)
        new = jnp.tanh(a[n:] + self.U[n:] @ (r * h)) + g * h
        return z * h + (1 - z) * new
