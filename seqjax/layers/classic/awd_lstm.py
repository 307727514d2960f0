"""AWD-LSTM (Merity et al. 2018, arXiv:1708.02182): an LSTM whose recurrent weights are dropped.

    U' = U * M / (1 - weight_drop)                                                       sec. 2
    x'_t = x_t * m / (1 - dropout)                                                       sec. 4.2
    h_t, c_t = LSTM(x'_t, h_{t-1}, c_{t-1}) with U' in place of U                        `lstm`

While training, an entry of M is 0 with probability `weight_drop`, one of m with `dropout`. Both are
drawn once for a call, and are the same for all its steps (and pieces): U does not overfit, and the
state is left alone, which a dropout of h_t would disturb. For language models of small texts.
`by_rows` draws M [4 hidden, 1], whole outputs of U, as the authors' code does with
variational=True. Without a key a call is an LSTM. A stream that is cut draws anew for each part, as
a window of truncated backpropagation does. Each example of a batch has masks of its own, where the
code has one M for all.

The rest of the recipe is the model's: `variational` dropout of what goes between its blocks, AR and
TAR by `ar` and `tar`; `--optimiser.average nt_asgd`; at evaluation the neural cache
(`seqjax.train.cache`).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.layers.classic.lstm import LSTM


class AWDLSTM(LSTM):
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        weight_drop: float = 0.5,
        by_rows: bool = False,
        dropout: float = 0.0,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        super().__init__(features, hidden=hidden, recurrent_init=recurrent_init, rngs=rngs)
        self.weight_drop, self.by_rows, self.dropout = weight_drop, by_rows, dropout
        self.noisy = weight_drop > 0 or dropout > 0

    def dropped(self, M: Array) -> "AWDLSTM":
        """The layer with U * M / (1 - weight_drop) for U: M of 0 and 1, [4 hidden, hidden or 1]."""
        layer, U = nnx.clone(self), self.U[...]
        kept = jnp.broadcast_to(M, U.shape).astype(U.dtype) / (1 - self.weight_drop)
        layer.U = nnx.Param(U * kept)
        return layer

    def drive(self, x, *flow):
        return super().drive(x)

    def run(self, x, h, flow):
        if flow.key is None:
            return super().run(x, h, flow)
        of_U, of_x = jax.random.split(flow.first_key())
        rows, columns = self.U.shape
        M = jax.random.bernoulli(of_U, 1 - self.weight_drop, (rows, 1 if self.by_rows else columns))
        m = jax.random.bernoulli(of_x, 1 - self.dropout, x.shape[1:])
        x = jnp.where(m[None], x / (1 - self.dropout), 0)
        return super(AWDLSTM, self.dropped(M)).run(x, h, flow)
