"""Recurrent Delta Network (Irie et al. 2021, arXiv:2106.06295): slow weights that see the answer.

    h_t = tanh(o_{t-1})                                                per head, of size D
    q_t = softmax(W_q x_t + R_q h_t),   k_t = softmax(W_k x_t + R_k h_t)
    v_t = W_v x_t + R_v h_t,            beta_t = sigmoid(w_b.x_t + r_b.h_t)
    W_t = W_{t-1} + beta_t (v_t - W_{t-1} k_t) k_t^T                   the delta rule
    o_t = W_t q_t,                      y_t = LN(x_t + W_o o_t)

What was answered feeds back into the keys, values and rates, inside each head: a nonlinear
recurrence, which tracks states that a delta rule alone does not. tanh is on what is fed back only,
q is not scaled. (A survey also writes a term R_y h_t in y_t; the authors' code has none.)

The state S is the transpose of W, and o. `order` of residual and norm as in
`seqjax.layers.fast_weights.fwp`. All weights start normal, 0.02. eigenvalues "[-1,1]": beta_t
becomes 2 sigmoid (arXiv:2411.12537).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.fast_weights.fwp import INIT, Sublayer
from seqjax.nn.base import option
from seqjax.nn.gates import EIGENVALUES, step_size
from seqjax.nn.linear import per_head
from seqjax.nn.recurrent import Recurrent


class RDNState(NamedTuple):
    S: jax.Array  # [heads, D, D]
    o: jax.Array  # [heads, D]


class RecurrentDeltaNet(Sublayer, Recurrent):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        head_size: int | None = None,
        order: str = "post",
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        super().__init__(features, order)
        self.heads, self.D = heads, head_size or per_head("features", features, heads)
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        D, inner = self.D, heads * self.D
        # q, k, v, beta side by side
        self.W = nnx.Linear(
            features, 3 * inner + heads, use_bias=False, kernel_init=INIT, rngs=rngs
        )
        self.R = nnx.Param(INIT(rngs.params(), (heads, D, 3 * D + 1)))
        self.W_o = nnx.Linear(inner, features, use_bias=False, kernel_init=INIT, rngs=rngs)

    def initial(self):
        heads, D = self.heads, self.D
        return RDNState(jnp.zeros((heads, D, D)), jnp.zeros((heads, D)))

    def drive(self, x):
        """[T, heads, 3 D + 1]."""
        qkv, beta = jnp.split(self.W(x), (3 * self.heads * self.D,), axis=1)
        qkv = qkv.reshape(len(x), 3, self.heads, self.D)
        return jnp.concatenate([qkv[:, 0], qkv[:, 1], qkv[:, 2], beta[:, :, None]], axis=2)

    def step(self, h, z):
        z = z + jnp.einsum("hd,hde->he", jnp.tanh(h.o), self.R[...])
        q, k, v, beta = jnp.split(z, (self.D, 2 * self.D, 3 * self.D), axis=1)
        q, k, beta = jax.nn.softmax(q), jax.nn.softmax(k), step_size(beta, self.eigenvalues)
        error = v - jnp.einsum("hk,hkv->hv", k, h.S)
        S = h.S + (beta * k)[:, :, None] * error[:, None]
        return RDNState(S, jnp.einsum("hk,hkv->hv", q, S))

    def readout(self, h, x):
        return self.W_o(h.o.reshape(self.heads * self.D).astype(x.dtype))

    def mix(self, x, h, flow):
        return Recurrent.run(self, x, h, flow)
