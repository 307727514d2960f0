"""Residual stacked RNNs (Lakhal et al., ECCV workshops 2018): x^l_t = m^l_t + x^{l-1}_t.

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
