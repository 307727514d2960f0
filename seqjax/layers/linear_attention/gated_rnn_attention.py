"""A gated linear RNN, and the weights by which it is linear self-attention
(Zucchet et al. 2023, "Gated recurrent neural networks discover attention", arXiv:2309.01775).

    h_t = lambda * h_{t-1} + (W_m^in x_t + b_m) * (W_x^in x_t + b_x)      h, lambda [hidden]
    y_t = D ((W_m^out h_t) * (W_x^out h_t))                               `width` products

`attention_weights(W_Q, W_K, W_V)` are values of these parameters by which

    y_t = (sum_{s <= t} (W_V x_s) (W_K x_s)^T) (W_Q x_t)

exactly, with d^2 units that remember all (lambda = 1) products of a value and a key, and d that
remember nothing (lambda = 0) and hold the query: their second factor is the constant 1, for which
the input gate carries a bias. Then D adds up value-key times query. So the construction takes
`hidden` = d (d + 1) and `width` = d^2, and d^4 parameters: fit for its d = 4, not for the widths of
models. By default they are 2 d and d.

lambda is drawn uniformly from [0, 1) and held in [-1, 1] where it is used.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.monoid import diagonal
from seqjax.nn.base import Precise
from seqjax.nn.recurrent import Associative


class GatedRNN(Associative):
    monoid = diagonal

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        width: int | None = None,
        rngs: nnx.Rngs,
    ):
        d = self.features = self.out_features = features
        self.hidden, width = hidden or 2 * d, width or d
        self.lam = Precise(jax.random.uniform(rngs.params(), (self.hidden,)))
        self.W_m_in, self.W_x_in = (nnx.Linear(d, self.hidden, rngs=rngs) for _ in range(2))
        self.W_m_out, self.W_x_out, self.D = (
            nnx.Linear(n, m, use_bias=False, rngs=rngs)
            for n, m in ((self.hidden, width), (self.hidden, width), (width, d))
        )

    def initial(self):
        return jnp.zeros(self.hidden)

    def lift(self, x):
        driven = self.W_m_in(x) * self.W_x_in(x)
        return jnp.clip(self.lam[...], -1, 1), driven.astype(self.lam.dtype)

    def readout(self, h, x):
        h = h.astype(x.dtype)
        return self.D(self.W_m_out(h) * self.W_x_out(h))


def attention_weights(W_Q: Array, W_K: Array, W_V: Array) -> dict[str, Array]:
    """The parameters of GatedRNN(d, hidden=d (d + 1), width=d^2) by which it is the linear
    attention of W_Q, W_K, W_V [d, d]."""
    d = len(W_Q)
    eye, one = jnp.eye(d, dtype=W_Q.dtype), jnp.ones(d, W_Q.dtype)
    none, square = jnp.zeros((d, d), W_Q.dtype), jnp.zeros(d * d, W_Q.dtype)
    # unit (i, j) of the first d^2 holds value i times key j; of the last d, unit j query j
    return {
        "lam": jnp.concatenate([square + 1, 0 * one]),
        "W_m_in.kernel": jnp.concatenate([jnp.repeat(W_V, d, axis=0), W_Q]).T,
        "W_m_in.bias": jnp.concatenate([square, 0 * one]),
        "W_x_in.kernel": jnp.concatenate([jnp.tile(W_K, (d, 1)), none]).T,
        "W_x_in.bias": jnp.concatenate([square, one]),
        "W_m_out.kernel": jnp.concatenate([jnp.kron(eye, eye), jnp.zeros((d, d * d), eye.dtype)]),
        "W_x_out.kernel": jnp.concatenate([jnp.zeros((d * d, d * d), eye.dtype), jnp.tile(eye, d)]),
        "D.kernel": jnp.repeat(eye, d, axis=0),
    }
