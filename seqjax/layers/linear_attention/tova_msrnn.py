"""Attention as a recurrent network of many states, with a bounded cache
(Oren et al. 2024, "Transformers are multi-state RNNs", arXiv:2401.06104).

    (K, V)_t = the `size` states that the policy keeps of (K, V)_{t-1} and (k_t, v_t)
    o_t = softmax(q_t . k_i / sqrt(d)) v_i  over (K, V)_{t-1} and (k_t, v_t)               per head
    y_t = W_o o_t

When the cache is full one state goes, the present one included:

    "tova"     the one that the present token attends to least, on the mean over heads
    "window"   the oldest, but for the first `keep_first` steps (window, window + i)
    "h2o"      per head, the one that all tokens since attended to least, their weights added up,
               but for the newest `recent` (half of `size`): the heavy hitters of arXiv:2306.14048

While no more than `size` steps are seen nothing goes, and it is softmax attention. Which state goes
is a choice; gradients flow through what stays. Neither q nor k carries a position.

The state holds keys and values, oldest first; the first size - filled slots are empty. With "h2o"
also the attention that each has had, in which no gradient flows.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.core.mesh import loop
from seqjax.core.monoid import select
from seqjax.nn.base import Layer, option
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.ops.dense_attention import attention_weights

POLICIES = ("tova", "window", "h2o")


class MultiState(NamedTuple):
    K: Array  # [size, heads, K]
    V: Array  # [size, heads, K]
    filled: Array  # int32 []
    had: Array | None = None  # [size, heads], with "h2o"


class MSRNN(Layer):
    structure = "the past that was attended to"

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        size: int = 512,
        policy: str = "tova",
        keep_first: int = 0,
        recent: int | None = None,
        rngs: nnx.Rngs,
    ):
        if not 0 <= keep_first < size:
            raise ValueError(f"keep_first must lie in [0, size={size}), got {keep_first}")
        self.features = self.out_features = features
        self.heads, self.K, self.size = heads, per_head("features", features, heads), size
        self.policy, self.keep_first = option("policy", policy, POLICIES), keep_first
        self.recent = size // 2 if recent is None else recent
        if not 0 <= self.recent <= size:
            raise ValueError(f"recent must lie in [0, size={size}], got {recent}")
        linear = partial(nnx.Linear, features, features, use_bias=False, rngs=rngs)
        self.W_q, self.W_k, self.W_v, self.W_o = (linear() for _ in range(4))

    def initial(self):
        empty = jnp.zeros((self.size, self.heads, self.K))
        had = jnp.zeros((self.size, self.heads)) if self.policy == "h2o" else None
        return MultiState(empty, empty, jnp.zeros((), jnp.int32), had)

    def run(self, x, h, flow):
        def body(state, now):
            q, k, v, reset, keep = now
            before = state if reset is None else select(reset, h.start, state)
            o, new = self.one(q, k, v, before)
            return (new if keep is None else select(keep, new, state)), o

        q, k, v = (split_heads(W(x), self.heads) for W in (self.W_q, self.W_k, self.W_v))
        q, k, v = (z.astype(h.now.K.dtype) for z in (q, k, v))
        last, o = loop(body, h.now, (q, k, v, flow.resets, flow.mask))
        return self.W_o(merge_heads(o).astype(x.dtype)), last

    def one(self, q, k, v, h):
        """Attend with q [heads, K] over the cache and the new state; then let one of them go."""
        K = jnp.concatenate([h.K, k[None]])
        V = jnp.concatenate([h.V, v[None]])
        place = jnp.arange(self.size + 1, dtype=jnp.int32)
        first = self.size - h.filled  # the oldest state held
        weight = attention_weights(q[None], K, (place >= first)[None], scale=self.K**-0.5)[:, 0]
        o = jnp.einsum("hm,mhk->hk", weight, V)
        goes, had, paid = jnp.full(self.heads, self.keep_first), None, lax.stop_gradient(weight)
        if self.policy == "tova":
            goes = jnp.broadcast_to(jnp.argmin(paid.mean(0)), goes.shape)
        if h.had is not None:
            had = jnp.concatenate([h.had, jnp.zeros_like(h.had[:1])]) + paid.T
            may_go = (place <= self.size - self.recent)[:, None]
            goes = jnp.argmin(jnp.where(may_go, had, jnp.inf), axis=0)
        # while there is room an empty slot goes, the first
        goes = jnp.where(h.filled < self.size, 0, goes).astype(jnp.int32)
        stays = place[:-1, None] + (place[:-1, None] >= goes[None]).astype(jnp.int32)

        def keep(z):
            return jnp.take_along_axis(z, stays.reshape(*stays.shape, *(1,) * (z.ndim - 2)), axis=0)

        filled = jnp.minimum(h.filled + 1, self.size).astype(jnp.int32)
        return o, MultiState(keep(K), keep(V), filled, None if had is None else keep(had))
