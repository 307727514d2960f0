"""The LSTM of 1997, without a forget gate (Hochreiter & Schmidhuber 1997): c only adds.

    c_t = c_{t-1} + i_t * g(W_g x_t + U_g h_{t-1} + b_g)      the constant error carousel
    h_t = o_t * h(c_t) = y_t                                  i_t, o_t as in `lstm`

    squash "1997":  g(a) = 4 sigmoid(a) - 2 = 2 tanh(a / 2),  h(a) = 2 sigmoid(a) - 1 = tanh(a / 2)
    squash "tanh":  g = h = tanh, as later papers have it

dc_t/dc_{t-1} = I along the cell, whatever the gates are: an error flows back unchanged. c grows
with the number of writes, and h saturates with it: for sequences that end, with a reset between
them; `lstm` learns when to forget. `full_recurrence`: gates see the last gates, too, as in the
paper's experiments. The gates' biases start at `gate_bias`; the paper starts them below 0 where
cells are to stay closed at first (its sec. 4, "abuse problem").

Left out: blocks of several cells that share their gates. The gradient is the whole one; that of the
paper, which stops what flows back through U, is the learner `truncated_lstm_1997`.
"""

import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.lstm import LSTM
from seqjax.nn.base import option

SQUASHES = {"1997": ("2tanh(a/2)", "tanh(a/2)"), "tanh": ("tanh", "tanh")}


class LSTM1997(LSTM):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        squash: str = "1997",
        full_recurrence: bool = False,
        gate_bias: float = 0.0,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        g, h = SQUASHES[option("squash", squash, SQUASHES)]
        super().__init__(
            features,
            hidden=hidden,
            gates="io",
            full_recurrence=full_recurrence,
            input_activation=g,
            output_activation=h,
            recurrent_init=recurrent_init,
            rngs=rngs,
        )
        starts = {"i": gate_bias, "g": 0.0, "o": gate_bias}
        bias = jnp.array([starts[block] for block in self.blocks])
        self.W.bias = nnx.Param(jnp.repeat(bias, self.hidden))
