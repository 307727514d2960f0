"""Local multi-query attention (arXiv:1911.02150; Griffin, 2402.19427 sec. 2.3), as a recurrence.

    y_t = W_o [ softmax_s(K^-1/2 q_t^h . k_s) v_s ]_h          s in (t - window, t]

All heads h share one key and one value per step. Keys and queries are turned by rotary positions,
so scores depend on t - s only. The state is a cache of the last window - 1 keys (not yet turned)
and values: that makes a stream, split anywhere, the same function as the whole.

A masked step leaves no key and does not move the window; a reset empties the cache.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.base import Layer
from seqjax.layers.parts import per_head, rotary
from seqjax.ops.look_back import empty, look_back


class LocalAttention(Layer):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        window: int = 1024,
        rotary_fraction: float = 0.5,
        rngs: nnx.Rngs,
    ):
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.features = self.out_features = features
        self.heads, self.K = heads, per_head("features", features, heads)
        self.window, self.rotary_fraction = window, rotary_fraction
        self.W_q = nnx.Linear(features, features, use_bias=False, rngs=rngs)
        self.W_k = nnx.Linear(features, self.K, use_bias=False, rngs=rngs)
        self.W_v = nnx.Linear(features, self.K, use_bias=False, rngs=rngs)
        self.W_o = nnx.Linear(features, features, rngs=rngs)

    def initial(self):
        keys = jnp.zeros((self.window - 1, self.K))
        return empty((keys, keys))

    def sequence(self, x, h, *, resets=None, mask=None, evaluator=None):
        del evaluator
        q = self.W_q(x).reshape(len(x), self.heads, self.K).astype(h.items[0].dtype)
        kv = self.W_k(x), self.W_v(x)
        y, h = look_back(self.attend, q, kv, h, resets=resets, mask=mask)
        return self.W_o(y.reshape(len(x), self.heads * self.K).astype(x.dtype)), h

    def attend(self, q, kv, i, j, seen):
        """q [n, H, K] over k, v [m, K]."""
        k, v = kv
        q = rotary(q, i, fraction=self.rotary_fraction)
        k = rotary(k[:, None], j, fraction=self.rotary_fraction)[:, 0]
        scores = jnp.einsum("thk,sk->hts", q, k) * self.K**-0.5
        scores = jnp.where(seen[None], scores, jnp.finfo(scores.dtype).min)
        return jnp.einsum("hts,sk->thk", jax.nn.softmax(scores), v)
