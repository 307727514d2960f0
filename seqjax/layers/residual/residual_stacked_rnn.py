"""Residual stacked RNNs (Lakhal et al., ECCV workshops 2018).

    m^l_t = layer_l(x^{l-1}_t)                                  x^0 = x
    x^l_t = m^l_t + x^{l-1}_t,   y = x^last

`stacked` with `residual`, under its name; see there.
"""

from collections.abc import Callable, Sequence

from flax import nnx

from seqjax.layers.classic.lstm import LSTM
from seqjax.layers.classic.stacked import Stacked
from seqjax.nn.base import Layer


class ResidualStackedRNN(Stacked):
    """layers: as of `Stacked`, each of which keeps the width; LSTMs by default."""

    def __init__(
        self,
        features: int,
        *,
        layers: Sequence[Callable[..., Layer]] = (LSTM, LSTM),
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        super().__init__(features, layers=layers, residual=True, dropout=dropout, rngs=rngs)
