"""Attention as a recurrent network (Feng et al. 2024, "Aaren", arXiv:2405.13956).

    o_t = sum_{i <= t} exp(s_i) v_i / sum_{i <= t} exp(s_i),     s_i = K^-1/2 q . k_i       per head
    k_i = W_k x_i,  v_i = W_v x_i,  q = W_q q_0 with a learned token q_0 of the layer
    y_t = W_o [o_t of every head]

The query does not depend on the token, so all prefixes of softmax attention are a scan:

    m_t = max(m_{t-1}, s_t)                                              the running maximum
    u_t = exp(m_{t-1} - m_t) u_{t-1} + exp(s_t - m_t)
    w_t = exp(m_{t-1} - m_t) w_{t-1} + exp(s_t - m_t) v_t,    o_t = w_t / u_t

State (m [heads], sums [heads, V + 1]): the columns of sums are w, and last u. It starts empty,
m = -inf; a learned start has m = 0, since out of a weight of exp(-inf) no gradient comes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry, Flow
from seqjax.core.monoid import stabilised
from seqjax.core.scan import scan
from seqjax.nn.base import Layer
from seqjax.nn.linear import merge_heads, per_head, split_heads


class Means(NamedTuple):
    """Weighted means: sums times exp(m) are the sums of weights times (value, 1)."""

    m: Array  # [G]
    sums: Array  # [G, V + 1]

    @classmethod
    def empty(cls, G: int, V: int, m: float = -jnp.inf):
        return cls(jnp.full(G, m), jnp.zeros((G, V + 1)))

    def read(self) -> Array:
        """[..., V]: the mean; of nothing, zero."""
        weight = self.sums[..., -1:]
        return self.sums[..., :-1] / jnp.where(weight == 0, 1, weight)

    def canonical(self):
        """The logarithm of the weight, and the mean: in range whatever m is."""
        weight = self.sums[..., -1]
        seen = weight > 0
        known = jnp.where(seen, weight, 1)
        m = jnp.where(seen, self.m, 0) + jnp.log(known)
        return Means(m, self.sums / known[..., None])


def with_one(v: Array) -> Array:
    return jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)


def means(log_f, s, v, h: Carry, flow: Flow) -> tuple[Means, Means]:
    """All states and the last: weights exp(s [T, G]) of v [T, G, V], decaying by log_f [T, G]."""
    m, s = h.now.m, s.astype(h.now.m.dtype)
    elements = (jnp.broadcast_to(log_f, s.shape).astype(m.dtype), s, with_one(v).astype(m.dtype))
    states, last = scan(stabilised, elements, Carry(tuple(h.now), tuple(h.start)), flow=flow)
    return Means(*states), Means(*last)


class Aaren(Layer):
    ops = ("stabilised",)
    sequence_parallel = True

    def __init__(self, features: int, *, heads: int = 4, rngs: nnx.Rngs):
        self.features = self.out_features = features
        self.heads, self.K = heads, per_head("features", features, heads)
        self.q_0 = nnx.Param(0.02 * jax.random.normal(rngs.params(), (features,)))
        self.W_q, self.W_k, self.W_v, self.W_o = (
            nnx.Linear(features, features, rngs=rngs) for _ in range(4)
        )

    def initial(self):
        return Means.empty(self.heads, self.K)

    def run(self, x, h, flow):
        q = split_heads(self.W_q(self.q_0[...][None]), self.heads)
        k, v = split_heads(self.W_k(x), self.heads), split_heads(self.W_v(x), self.heads)
        s = jnp.sum(q * k, axis=-1) * self.K**-0.5
        states, last = means(jnp.zeros((1, 1), s.dtype), s, v, h, flow)
        return self.W_o(merge_heads(states.read()).astype(x.dtype)), last
