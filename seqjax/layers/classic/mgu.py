"""Minimal gated unit (Zhou et al. 2016, arXiv:1603.09420): one gate forgets, resets and writes.

    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)
    n_t = tanh(W_n x_t + U_n (f_t * h_{t-1}) + b_n)           (h~ in the paper)
    h_t = (1 - f_t) * h_{t-1} + f_t * n_t = y_t               h [hidden]

A GRU with r = f and z = 1 - f, of two thirds of its parameters: for small models on short series.
Rows of W, U and b are stacked in the order f, n. With `chrono`, the longest time scale expected,
b_f starts at -log U[1, chrono - 1] instead of 0 (arXiv:1804.11188): here it is 1 - f that keeps.
U starts orthogonal, block by block, or by `recurrent_init`. `bias` False takes b out.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.initialisation import gate_bias, recurrent_weights
from seqjax.nn.recurrent import Recurrent


class MGU(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        bias: bool = True,
        chrono: float | None = None,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        if chrono is not None and not bias:
            raise ValueError("chrono is how the biases start: it needs bias=True")

        def bias_init(key, shape, dtype):
            b_f = -gate_bias(key, H, 0.0, chrono).astype(dtype)
            return jnp.concatenate([b_f, jnp.zeros_like(b_f)])

        self.W = nnx.Linear(features, 2 * H, use_bias=bias, bias_init=bias_init, rngs=rngs)
        self.U = nnx.Param(recurrent_weights(H, 2, init=recurrent_init, rngs=rngs))

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.W(x)

    def step(self, h, z):
        n = self.out_features  # where the rows of n begin
        f = jax.nn.sigmoid(z[:n] + self.U[:n] @ h)
        return (1 - f) * h + f * jnp.tanh(z[n:] + self.U[n:] @ (f * h))
