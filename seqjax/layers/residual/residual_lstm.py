"""Residual LSTM (Kim et al. 2017, arXiv:1701.03360): what comes from below goes past the cell.

    i_t, f_t, c_t as in `lstm`, of x_t, the output of the layer below, and h_{t-1}   c [hidden]
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + V_o c_t + b_o)                             [projection]
    m_t = W_p tanh(c_t)
    h_t = o_t * (m_t + W_h x_t) = y_t                                                [projection]

The shortcut is through space, not time, and inside the output gate, so that the cell need not hold
what only passes: stacks of ten and more layers train (`stacked`). W_h is the identity where
`projection` equals the features, its default, and has weights elsewhere. `peepholes`: p_i * c_{t-1}
and p_f * c_{t-1} in i and f, and V_o; the paper has one letter for all three, and since o is of
another size than c, V_o is a matrix.

Rows of W and U are stacked in the order i, f, g, o; b_f starts at 1, peepholes at 0. U starts
orthogonal, block by block, or by `recurrent_init`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.lstm import LSTMState
from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent


class ResidualLSTM(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        projection: int | None = None,
        peepholes: bool = True,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.hidden = hidden or features
        P = self.out_features = projection or features

        def bias(key, shape, dtype):
            return jnp.zeros(shape, dtype).at[H : 2 * H].set(1)

        self.W = nnx.Linear(features, 3 * H + P, bias_init=bias, rngs=rngs)  # carries b
        draw = [(H, 3), (P, 1)]
        U = [
            recurrent_weights(n, blocks, columns=P, init=recurrent_init, rngs=rngs)
            for n, blocks in draw
        ]
        self.U = nnx.Param(jnp.concatenate(U))
        self.W_p = nnx.Linear(H, P, use_bias=False, rngs=rngs)
        self.W_h = None if P == features else nnx.Linear(features, P, use_bias=False, rngs=rngs)
        self.p = nnx.Param(jnp.zeros((2, H))) if peepholes else None  # of i, f
        self.V_o = nnx.Param(jnp.zeros((P, H))) if peepholes else None

    def initial(self):
        return LSTMState(jnp.zeros(self.out_features), jnp.zeros(self.hidden))

    def drive(self, x):
        return self.W(x), x if self.W_h is None else self.W_h(x)

    def step(self, state, z):
        h, c = state
        z, shortcut = z
        H = self.hidden
        i, f, g, o = jnp.split(z + self.U @ h, [H, 2 * H, 3 * H])
        p_i, p_f = (0, 0) if self.p is None else self.p[...]
        i, f = jax.nn.sigmoid(i + p_i * c), jax.nn.sigmoid(f + p_f * c)
        c = f * c + i * jnp.tanh(g)
        o = jax.nn.sigmoid(o if self.V_o is None else o + self.V_o @ c)
        return LSTMState(o * (self.W_p(jnp.tanh(c)) + shortcut), c)

    def readout(self, state, x):
        return state.h
