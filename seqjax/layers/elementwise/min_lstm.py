"""minLSTM (Feng et al. 2024, "Were RNNs all we needed?", arXiv:2410.01201).

    f_t  = sigmoid(W_f x_t + b_f),  i_t = sigmoid(W_i x_t + b_i)            sec. 3.2
    f'_t = f_t / (f_t + i_t),       i'_t = i_t / (f_t + i_t)
    h~_t = g(W_h x_t + b_h)                                                 appendix B
    h_t  = f'_t * h_{t-1} + i'_t * h~_t = y_t               h [expansion features]

Rows of W are stacked in the order h, f, i. f' is the sigmoid of log f - log i, and i' that of its
negative: nothing is divided by. `candidate`, `expansion`, `eigenvalues` and why no log space is
needed: see `seqjax.layers.elementwise.min_gru`, whose convex combination this is with other gates.
"""

import jax
import jax.numpy as jnp

from seqjax.layers.elementwise.min_gru import CANDIDATES, MinGRU
from seqjax.nn.gates import multiplier


class MinLSTM(MinGRU):
    rows = 3  # blocks of W: h, f, i

    def lift(self, x):
        h, f, i = jnp.split(x, 3)
        odds = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)
        kept = multiplier(jax.nn.sigmoid(odds), self.eigenvalues)
        return kept, jax.nn.sigmoid(-odds) * CANDIDATES[self.candidate](h)
