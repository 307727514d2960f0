"""Chrono LSTM (Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", 1804.11188).

    b_f ~ log U[1, longest - 1],   b_i = -b_f

An LSTM (`seqjax.layers.classic.lstm`) that starts with memories over all time scales up to the
`longest` expected dependency: a forget gate of 1 - 1/T keeps for T steps, and a leak that lets in
1/T of what comes keeps its cell in range. Nothing else is different.
"""

from flax import nnx

from seqjax.layers.classic.lstm import LSTM


class ChronoLSTM(LSTM):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        longest: float = 1000.0,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features, hidden=hidden, chrono=longest, recurrent_init=recurrent_init, rngs=rngs
        )
