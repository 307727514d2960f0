"""Element-wise LSTM (Irie, Gopalakrishnan & Schmidhuber 2023, arXiv:2305.19044, sec. 3.1).

    f_t = sigmoid(F x_t + w_f * c_{t-1} + b_f)                                         eq. 10
    z_t = tanh(Z x_t + w_z * c_{t-1} + b_z)                                            eq. 11
    c_t = f_t * c_{t-1} + (1 - f_t) * z_t                      c, w_f, w_z [hidden]    eq. 12
    o_t = sigmoid(W_o [x_t, c_t] + b_o),  y_t = o_t * c_t                              eq. 13

The gates see of the past only their own cell, so real-time recurrent learning is exact at the cost
of one number per parameter (`rtrl_elementwise`): the network to learn online from streams that
never end. The output gate is a full matrix, outside the recurrence; there is no tanh on c.

F, Z, w and b are normal with deviation 0.1, b_f about `forget_bias`, as released.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Precise
from seqjax.nn.recurrent import Recurrent


class ELSTM(Recurrent):
    jacobian = "diagonal"

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        forget_bias: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.features, self.out_features = features, hidden or features
        H, normal = self.out_features, nnx.initializers.normal(0.1)

        def biases(key, shape, dtype):
            return normal(key, shape, dtype) + jnp.repeat(jnp.asarray([forget_bias, 0], dtype), H)

        self.W = nnx.Linear(features, 2 * H, kernel_init=normal, bias_init=biases, rngs=rngs)
        self.w = Precise(normal(rngs.params(), (2, H)))  # of f, of z
        self.W_o = nnx.Linear(features + H, H, rngs=rngs)

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.W(x)  # F x + b_f, then Z x + b_z

    def step(self, c, z):
        w_f, w_z = self.w[...]
        f, z = jnp.split(z, 2)
        f = jax.nn.sigmoid(f + w_f * c)
        return f * c + (1 - f) * jnp.tanh(z + w_z * c)

    def readout(self, c, x):
        return jax.nn.sigmoid(self.W_o(jnp.concatenate([x, c.astype(x.dtype)]))) * c
