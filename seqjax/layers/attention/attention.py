"""Softmax attention over the last `window` steps, in the forms that released models use.

    y_t = W_o [ softmax_s(f(scale q_t^h . k_s^g)) v_s^g ]_h          s in (t - window, t]

Grouped queries (arXiv:2305.13245): heads / kv_heads query heads h in a row share the keys and
values g. `rotary_fraction` is the share of a head's channels that are turned by their position
(arXiv:2104.09864; 0: no positions). `qk_norm` puts an RMSNorm on q and k, over each "head" or over
"all" heads at once. `softcap` c: f(s) = c tanh(s / c) (Gemma 2). `gate`: the result of each head is
multiplied by sigmoid(W_gate x) before W_o (arXiv:2505.06708).

The state is a cache of the last window - 1 keys (not yet turned) and values: that makes a stream,
split anywhere, the same function as the whole. `window` bounds the state, and is how far attention
sees: sequences of up to `window` steps have full causal attention (arXiv:1706.03762), longer ones a
sliding window (arXiv:2004.05150). A masked step leaves no key and does not move the window; a reset
empties the cache. `LatentAttention` keeps the compressed form of both in it.

Raises ValueError for a window below 1, an unknown `qk_norm`, and heads that do not divide.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Layer, option
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.nn.positions import rotary
from seqjax.ops.look_back import empty, look_back

QK_NORMS = ("none", "head", "all")


class Attention(Layer):
    structure = "window of the past"
    learned = ""  # a cache begins empty

    def __init__(
        self,
        features: int,
        *,
        out_features: int | None = None,
        heads: int = 4,
        kv_heads: int | None = None,
        head_size: int | None = None,
        window: int = 1024,
        rotary_fraction: float = 1.0,
        base: float = 10_000.0,
        scale: float | None = None,
        softcap: float | None = None,
        qk_norm: str = "none",
        norm_offset: float = 0.0,
        norm_eps: float = 1e-6,
        gate: bool = False,
        bias: bool = False,
        out_bias: bool | None = None,
        rngs: nnx.Rngs,
    ):
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.features, self.out_features = features, out_features or features
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.shared = per_head("heads", heads, self.kv_heads)  # heads that share a key
        self.K = head_size or per_head("features", features, heads)
        self.window, self.rotary_fraction = window, rotary_fraction
        self.base, self.softcap = base, softcap
        self.scale = self.K**-0.5 if scale is None else scale
        keys, values = heads * self.K, self.kv_heads * self.K

        def linear(n, m, use_bias=bias):
            return nnx.Linear(n, m, use_bias=use_bias, rngs=rngs)

        self.W_q, self.W_k, self.W_v = (linear(features, n) for n in (keys, values, values))
        self.W_o = linear(keys, self.out_features, bias if out_bias is None else out_bias)
        self.W_gate = linear(features, keys) if gate else None
        self.qk_norm = option("qk_norm", qk_norm, QK_NORMS)
        sizes = (keys, values) if qk_norm == "all" else (self.K, self.K)
        self.q_norm, self.k_norm = (
            None if qk_norm == "none" else Norm(n, offset=norm_offset, eps=norm_eps) for n in sizes
        )

    def initial(self):
        keys = jnp.zeros((self.window - 1, self.kv_heads, self.K))
        return empty((keys, keys))

    def run(self, x, h, flow):
        q = self.normed(self.W_q(x), self.heads, self.q_norm)
        k = self.normed(self.W_k(x), self.kv_heads, self.k_norm)
        kv = k, split_heads(self.W_v(x), self.kv_heads)
        q = q.astype(h.now.items[0].dtype)
        y, h = look_back(self.attend, q, kv, h, flow=flow)
        y = merge_heads(y).astype(x.dtype)
        if self.W_gate is not None:
            y = y * jax.nn.sigmoid(self.W_gate(x))
        return self.W_o(y), h

    def normed(self, z, heads, norm):
        z = norm(z) if norm is not None and self.qk_norm == "all" else z
        z = split_heads(z, heads)
        return norm(z) if norm is not None and self.qk_norm == "head" else z

    def attend(self, q, kv, i, j, seen):
        """q [n, heads, K] over k, v [m, kv_heads, K]."""
        k, v = kv
        if self.rotary_fraction:
            q = rotary(q, i, fraction=self.rotary_fraction, base=self.base)
            k = rotary(k, j, fraction=self.rotary_fraction, base=self.base)
        return softmax_over(q, k, v, seen, self.scale, self.softcap)


def softmax_over(q, k, v, seen, scale, softcap=None):
    """q [n, H, K] over k [m, G, K] and v [m, G, V]: [n, H, V], H / G heads in a row on each g."""
    n, H, K = q.shape
    q = q.reshape(n, k.shape[1], H // k.shape[1], K)
    scores = jnp.einsum("tghk,sgk->ghts", q, k) * scale
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = jnp.where(seen[None, None], scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("ghts,sgv->tghv", jax.nn.softmax(scores), v).reshape(n, H, v.shape[2])
