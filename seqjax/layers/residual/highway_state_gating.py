"""Highway state gating (Shoham & Permuter 2018, arXiv:1805.09238): a recurrent highway network
whose state may pass by the whole step.

    s_L = the L layers of `highway_rnn` on y_{t-1} and x_t
    g_t = sigmoid(W_s y_{t-1} + W_L s_L + b)
    y_t = g_t * y_{t-1} + (1 - g_t) * s_L

An error flows back through time along g, past all L layers, so that a step may have more of them:
for the tasks of `highway_rnn`. b starts at 0. The paper's abstract has the gate in words, which
chooses whether the state passes directly through time; that it sees both states, and which of them
g_t multiplies, is our writing of it.
"""

import jax
from flax import nnx

from seqjax.layers.residual.highway_rnn import HighwayRNN


class HighwayStateGating(HighwayRNN):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        depth: int = 10,
        coupled: bool = True,
        gate_bias: float = -2.0,
        dropout: float = 0.0,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            hidden=hidden,
            depth=depth,
            coupled=coupled,
            gate_bias=gate_bias,
            dropout=dropout,
            recurrent_init=recurrent_init,
            rngs=rngs,
        )
        H = self.out_features
        self.W_s = nnx.Linear(H, H, use_bias=False, rngs=rngs)
        self.W_L = nnx.Linear(H, H, rngs=rngs)  # carries b

    def transition(self, s, z, mask=None):
        new = super().transition(s, z, mask)
        g = jax.nn.sigmoid(self.W_s(s) + self.W_L(new))
        return g * s + (1 - g) * new
