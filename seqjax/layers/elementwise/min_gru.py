"""minGRU (Feng et al. 2024, "Were RNNs all we needed?", arXiv:2410.01201).

    z_t  = sigmoid(W_z x_t + b_z)                                         sec. 3.1.3
    h~_t = g(W_h x_t + b_h)                                               appendix B
    h_t  = (1 - z_t) * h_{t-1} + z_t * h~_t = y_t        h [expansion features]

g(a) = a + 1/2 for a >= 0, sigmoid(a) below: continuous and positive (`candidate` "positive");
"linear" is g(a) = a, the form of sec. 3.1.3. Rows of W are stacked in the order h, z.

The gates see only the input, so the recurrence is an affine scan. The paper computes it in log
space, for which it needs h~ > 0. That is a way of computing, not another meaning: h_t is a convex
combination of the past and h~_t, and the scan over (1 - z, z h~) divides by nothing and cannot
overflow.

eigenvalues "[-1,1]": what multiplies h_{t-1}, here 1 - z_t, becomes twice it less one
(arXiv:2411.12537); what multiplies h~_t stays. z = 1 then turns h into h~ - h.

With `expansion` other than 1 the state is that much wider and y_t = V h_t is projected back, as in
the official code. Of minGRU-pytorch's options not here: a V without expansion (proj_out), a linear
map that may follow.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.monoid import diagonal
from seqjax.nn.base import option
from seqjax.nn.gates import EIGENVALUES, multiplier
from seqjax.nn.recurrent import Associative

CANDIDATES = {
    "positive": lambda a: jnp.where(a >= 0, a + 0.5, jax.nn.sigmoid(a)),
    "linear": lambda a: a,
}


class MinGRU(Associative):
    monoid = diagonal
    rows: ClassVar[int] = 2  # blocks of W: h, z

    def __init__(
        self,
        features: int,
        *,
        expansion: float = 1.0,
        candidate: str = "positive",
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.hidden = int(features * expansion)
        self.candidate = option("candidate", candidate, CANDIDATES)
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.W = nnx.Linear(features, self.rows * self.hidden, rngs=rngs)  # carries b
        self.V = (
            None if expansion == 1 else nnx.Linear(self.hidden, features, use_bias=False, rngs=rngs)
        )

    def initial(self):
        return jnp.zeros(self.hidden)

    def drive(self, x):
        return self.W(x)

    def lift(self, x):
        h, z = jnp.split(x, 2)
        kept = multiplier(jax.nn.sigmoid(-z), self.eigenvalues)
        return kept, jax.nn.sigmoid(z) * CANDIDATES[self.candidate](h)

    def readout(self, h, x):
        return h if self.V is None else self.V(h)
