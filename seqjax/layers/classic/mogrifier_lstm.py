"""Mogrifier LSTM (Melis et al. 2020, arXiv:1909.01792): input and state gate each other first.

    x^i = 2 sigmoid(Q^i h^{i-1} + b^i) * x^{i-2}    for odd  i = 1, 3 .. r         eq. 1
    h^i = 2 sigmoid(R^i x^{i-1} + b^i) * h^{i-2}    for even i = 2, 4 .. r         eq. 2
    h_t, c_t = LSTM(x^last, h^last, c_{t-1})        `lstm`;  x^{-1} = x_t, h^0 = h_{t-1}

What a word means is changed by what came before it, before the gates see it: for language, where
the input depends on its context. r = `rounds`; 0 is the plain LSTM. With `rank`, Q^i and R^i are
products of two matrices, Q_left Q_right, of that rank.

Two programs are public. The authors' has, as the paper's results do, cap_input_gate: i_t enters as
min(1 - f_t, i_t), which keeps |c| <= 1 (arXiv:1707.05589), or `coupled`, i_t = 1 - f_t. A widely
used other one has i_t as it is: cap_input_gate False. Both have the biases b^i, which the paper's
equations leave out; they start at 0, as b_f at `forget_bias`.
"""

from typing import Annotated

import jax
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.classic.lstm import LSTM


class MogrifierLSTM(LSTM):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        rounds: Annotated[int, Range(0, 1000)] = 5,
        rank: int | None = None,
        cap_input_gate: bool = True,
        coupled: bool = False,
        forget_bias: float = 1.0,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            hidden=hidden,
            coupled=coupled,
            cap_input_gate=cap_input_gate and not coupled,
            forget_bias=forget_bias,
            recurrent_init=recurrent_init,
            rngs=rngs,
        )

        def modulation(n, m):
            if rank is None:
                return nnx.Linear(n, m, rngs=rngs)
            low = nnx.Linear(n, rank, use_bias=False, rngs=rngs)
            return nnx.Sequential(low, nnx.Linear(rank, m, rngs=rngs))

        H = self.hidden
        ends = [(H, features) if i % 2 else (features, H) for i in range(1, rounds + 1)]
        self.QR = nnx.List([modulation(n, m) for n, m in ends])  # Q^1, R^2, Q^3 ..

    def drive(self, x):
        return x

    def step(self, state, z):
        x, h = z, state.h
        for i, modulate in enumerate(self.QR, 1):
            if i % 2:
                x = 2 * jax.nn.sigmoid(modulate(h)) * x
            else:
                h = 2 * jax.nn.sigmoid(modulate(x)) * h
        return super().step(state._replace(h=h), self.W(x))
