"""GILR-LSTM: an LSTM whose gates see a linear surrogate (Martin & Cundy 2018, arXiv:1709.04057).

    g_t = sigmoid(V_g x_t + b_g),  i~_t = tanh(V_h x_t + b_h)
    h~_t = g_t * h~_{t-1} + (1 - g_t) * i~_t                    the surrogate, a GILR
    f_t, i_t, o_t = sigmoid(U h~_{t-1} + V x_t + b)
    z_t = tanh(U_z h~_{t-1} + V_z x_t + b_z)
    c_t = f_t * c_{t-1} + i_t * z_t,   y_t = o_t * c_t          state (h~, c), each [hidden]

Where an LSTM's gates see its own output, which makes it serial, these see what another recurrence,
linear in its state, has made of the inputs: two scans, one after the other. Blocks of V: g, h, then
f, i, o, z; of U: f, i, o, z. eigenvalues "[-1,1]": the g_t and f_t that multiply h~_{t-1} and
c_{t-1} become 2 g_t - 1 and 2 f_t - 1 (arXiv:2411.12537).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.monoid import diagonal
from seqjax.core.scan import scan
from seqjax.nn.base import Layer, option
from seqjax.nn.gates import EIGENVALUES, multiplier
from seqjax.nn.states import entering


class GILRState(NamedTuple):
    surrogate: jax.Array  # [hidden]
    c: jax.Array  # [hidden]


class GILRLSTM(Layer):
    ops = ("diagonal",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = features
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        H = self.out_features = hidden or features
        self.V = nnx.Linear(features, 6 * H, rngs=rngs)  # carries b
        self.U = nnx.Linear(H, 4 * H, use_bias=False, rngs=rngs)

    def initial(self):
        zero = jnp.zeros(self.out_features)
        return GILRState(zero, zero)

    def run(self, x, h, flow):
        H = self.out_features

        def pooled(s, written, h):
            return scan(diagonal, (multiplier(s, self.eigenvalues), written), h, flow=flow)

        z = self.V(x)
        g, i = jax.nn.sigmoid(z[:, :H]), jnp.tanh(z[:, H : 2 * H])
        states, surrogate = pooled(g, (1 - g) * i, h.surrogate)
        before = entering(states, h.surrogate, flow).astype(x.dtype)
        f, i, o, z = jnp.split(z[:, 2 * H :] + self.U(before), 4, axis=1)
        f, i, o = jax.nn.sigmoid(f), jax.nn.sigmoid(i), jax.nn.sigmoid(o)
        c, last = pooled(f, i * jnp.tanh(z), h.c)
        return o * c, GILRState(surrogate, last)
