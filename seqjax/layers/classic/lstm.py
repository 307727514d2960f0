"""Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i)        state (h, c), each [hidden]
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)
    g_t = tanh   (W_g x_t + U_g h_{t-1} + b_g)
    c_t = f_t * c_{t-1} + i_t * g_t
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)            p only with `peepholes`
    h_t = o_t * tanh(c_t) = y_t

Rows of W, U and b are stacked in the order i, f, g, o. b_f starts at 1 (Gers et al., sec. 4);
with `chrono`, the longest time scale expected, at log U[1, chrono - 1], and b_i at its negative
(arXiv:1804.11188). U starts orthogonal, block by block, or as `recurrent_init` says.

norm (arXiv:1607.06450): LN(W x) + LN(U h) + b in place of W x + U h + b, each LayerNorm over all
four blocks at once and with weights, and h_t = o_t * tanh(LN(c_t)), with weights and a bias.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.base import Precise, Recurrent
from seqjax.layers.classic.initial import gate_bias, recurrent_weights
from seqjax.layers.parts import Norm


class LSTMState(NamedTuple):
    h: jax.Array  # [hidden], the output
    c: jax.Array  # [hidden], the cell


class LSTM(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        peepholes: bool = False,
        norm: bool = False,
        forget_bias: float = 1.0,
        chrono: float | None = None,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features

        def bias_init(key, shape, dtype):
            b_f = gate_bias(key, H, forget_bias, chrono).astype(dtype)
            b_i = jnp.zeros_like(b_f) if chrono is None else -b_f
            return jnp.zeros(shape, dtype).at[:H].set(b_i).at[H : 2 * H].set(b_f)

        # carries b, but with norms theirs does
        self.W = nnx.Linear(features, 4 * H, use_bias=not norm, bias_init=bias_init, rngs=rngs)
        self.norm_x, self.norm_h, self.norm_c = (
            Norm(n, centre=True, bias=bias, eps=1e-5) if norm else None
            for n, bias in ((4 * H, True), (4 * H, False), (H, True))
        )
        if self.norm_x is not None:
            self.norm_x.bias = Precise(bias_init(rngs.params(), (4 * H,), jnp.float32))
        self.U = nnx.Param(recurrent_weights(H, 4, init=recurrent_init, rngs=rngs))
        self.p = nnx.Param(jnp.zeros((3, H))) if peepholes else None  # i, f, o

    def initial(self):
        zero = jnp.zeros(self.out_features)
        return LSTMState(zero, zero)

    def drive(self, x):
        return self.W(x) if self.norm_x is None else self.norm_x(self.W(x))

    def step(self, state, z):
        h, c = state
        mixed = self.U @ h
        i, f, g, o = jnp.split(z + (mixed if self.norm_h is None else self.norm_h(mixed)), 4)
        p_i, p_f, p_o = (0, 0, 0) if self.p is None else self.p[...]
        i, f, g = jax.nn.sigmoid(i + p_i * c), jax.nn.sigmoid(f + p_f * c), jnp.tanh(g)
        c = f * c + i * g
        shown = c if self.norm_c is None else self.norm_c(c)
        return LSTMState(jax.nn.sigmoid(o + p_o * c) * jnp.tanh(shown), c)

    def readout(self, state, x):
        return state.h
