"""Multi-dimensional LSTM (Graves, Fernandez & Schmidhuber 2007, arXiv:0705.2011), in two.

    i  = sigmoid(W_i  x + U_i1  h^1 + U_i2  h^2 + p_i1 * c^1 + p_i2 * c^2 + b_i)
    f1 = sigmoid(W_f1 x + U_f11 h^1 + U_f12 h^2 + p_f1 * c^1 + b_f1)
    f2 = sigmoid(W_f2 x + U_f21 h^1 + U_f22 h^2 + p_f2 * c^2 + b_f2)
    c  = i * tanh(W_g x + U_g1 h^1 + U_g2 h^2 + b_g) + f1 * c^1 + f2 * c^2
    o  = sigmoid(W_o  x + U_o1  h^1 + U_o2  h^2 + p_o * c + b_o),     h = o * tanh(c) = y

at each place of a picture, where ^1 is the place above and ^2 the one before it in its row, zero
beyond the edge; p is there with `peepholes`. A step of time is a row: its `columns` places of equal
channels lie flat in the features, as those of y do, and the state is the row above, (h, c), each
[columns, hidden]. So pictures of any height stream, row by row. For pages of handwriting and other
pictures read in order.

One layer sees what lies above and to the left; with `mirrored` a row is read from its last place.
The paper's networks have four layers side by side, one for each corner: both kinds, inside
`bidirectional` (`seqjax.nn.combinators.Parallel`).

Rows of W, U_1, U_2 and b are stacked in the order i, f1, f2, g, o; b_f1 and b_f2 start at 0, so
that c, which adds two forget gates, keeps its size. U_1, U_2 start orthogonal, block by block, or
by `recurrent_init`; p at 0.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.mesh import loop
from seqjax.layers.classic.lstm import LSTMState
from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent


class MDLSTM(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        columns: int | None = None,
        hidden: int | None = None,
        peepholes: bool = False,
        mirrored: bool = False,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        N = self.columns = columns or features
        if features % N:
            raise ValueError(f"features={features} are no rows of columns={N}")
        channels = features // N
        H = self.hidden = hidden or channels
        self.features, self.out_features, self.mirrored = features, N * H, mirrored
        self.W = nnx.Linear(channels, 5 * H, rngs=rngs)  # carries b
        self.U_1, self.U_2 = (
            nnx.Param(recurrent_weights(H, 5, init=recurrent_init, rngs=rngs)) for _ in range(2)
        )
        self.p = nnx.Param(jnp.zeros((5, H))) if peepholes else None  # i1, i2, f1, f2, o

    def initial(self):
        row = jnp.zeros((self.columns, self.hidden))
        return LSTMState(row, row)

    def drive(self, x):
        return self.W(x.reshape(len(x), self.columns, -1))

    def step(self, state, z):
        i1, i2, f1, f2, p_o = (0, 0, 0, 0, 0) if self.p is None else self.p[...]

        def place(before, now):
            h, c = before
            a, above = now
            i, forget_1, forget_2, g, o = jnp.split(a + self.U_2 @ h, 5)
            i = jax.nn.sigmoid(i + i1 * above + i2 * c)
            kept = jax.nn.sigmoid(forget_1 + f1 * above) * above
            c = i * jnp.tanh(g) + kept + jax.nn.sigmoid(forget_2 + f2 * c) * c
            h = jax.nn.sigmoid(o + p_o * c) * jnp.tanh(c)
            return (h, c), (h, c)

        first = (jnp.zeros_like(state.h[0]), jnp.zeros_like(state.c[0]))
        row = (z + state.h @ self.U_1.T, state.c)
        return LSTMState(*loop(place, first, row, reverse=self.mirrored)[1])

    def readout(self, state, x):
        return state.h.reshape(-1)
