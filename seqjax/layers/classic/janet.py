"""JANET (van der Westhuizen & Lasenby 2018, arXiv:1804.04849): an LSTM with the forget gate alone.

    s_t = W_f x_t + U_f h_{t-1} + b_f
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)                   (c~ in the paper)
    h_t = sigmoid(s_t) * h_{t-1} + (1 - sigmoid(s_t - beta)) * g_t = y_t         h = c [hidden]

beta = 1 (the paper's) writes more than is forgotten; beta = 0 is the LSTM of `lstm` with gates "f",
coupled, and a linear output. h may exceed 1 in size. Half of an LSTM's parameters and state, for
memory over long times, which is where b_f starts: with `chrono`, the longest time scale expected,
at log U[1, chrono - 1] (arXiv:1804.11188), as the paper has it; without, at 1.

Rows of W, U and b are stacked in the order f, g. U starts orthogonal, block by block, or by
`recurrent_init`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.initialisation import gate_bias, recurrent_weights
from seqjax.nn.recurrent import Recurrent


class JANET(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        beta: float = 1.0,
        chrono: float | None = None,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        self.features, self.beta = features, beta
        H = self.out_features = hidden or features

        def bias_init(key, shape, dtype):
            b_f = gate_bias(key, H, 1.0, chrono).astype(dtype)
            return jnp.concatenate([b_f, jnp.zeros_like(b_f)])

        self.W = nnx.Linear(features, 2 * H, bias_init=bias_init, rngs=rngs)  # carries b
        self.U = nnx.Param(recurrent_weights(H, 2, init=recurrent_init, rngs=rngs))

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.W(x)

    def step(self, h, z):
        s, g = jnp.split(z + self.U @ h, 2)
        return jax.nn.sigmoid(s) * h + jax.nn.sigmoid(self.beta - s) * jnp.tanh(g)
