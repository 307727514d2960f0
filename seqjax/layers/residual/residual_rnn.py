"""Residual RNN (Yue et al. 2018, Information 9(3), 56; form of Wang & Tian, EMNLP 2016): a step
learns what to add to the state.

    F_1 = tanh(W_1 x_t + U_1 h_{t-1} + b_1)
    F_k = tanh(W_k x_t + U_k F_{k-1} + b_k),     k = 2 .. K
    h_t = h_{t-1} + F_K = y_t                                            h [hidden]

dh_t/dh_{t-1} = I + dF: the identity carries errors back whatever the weights are, and h grows with
time by at most 1 a step, where a gated unit would forget; there is no gate to pay for. For series
that end, and as the plain case against `e59` (F of x alone) and `heterogeneous_residual` (a share
of h instead of all). K = `depth`. The abstract of Yue et al. has the residual in words, "with
reference to the hidden state"; letters, and x_t in each F_k, follow Wang & Tian, whose outer f and
g are the identity here.

U starts orthogonal, block by block, or by `recurrent_init`, times `recurrent_scale`, small by
default: residuals begin near 0 in h.
"""

import jax.numpy as jnp
from flax import nnx

from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent


class ResidualRNN(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        depth: int = 2,
        recurrent_init: str = "orthogonal",
        recurrent_scale: float = 0.1,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.W = nnx.Linear(features, depth * H, rngs=rngs)  # carries b
        U = recurrent_weights(H, depth, init=recurrent_init, scale=recurrent_scale, rngs=rngs)
        self.U = nnx.Param(U.reshape(depth, H, H))

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.W(x).reshape(len(x), -1, self.out_features)

    def step(self, h, z):
        F = h
        for k in range(len(z)):
            F = jnp.tanh(z[k] + self.U[k] @ F)
        return h + F
