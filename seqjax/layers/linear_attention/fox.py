"""Forgetting Transformer (Lin et al. 2025, arXiv:2503.02130): softmax attention that forgets.

    o_i = softmax_j(K^-1/2 q_i . k_j + D_ij) v_j,   D_ij = sum_{l = j+1 .. i} log f_l
    f_t = sigmoid(w_f x_t + b_f)                    one forget gate per head
    y_t = W_o o_t

D takes the place of positions. The paper looks back without limit; here `window` steps are
remembered, with their forget gates, which is the same while the sequence is no longer.

qk_norm: RMSNorm of q and k per head, output_gate: y = W_o (sigmoid(W_g x) * o): parts of the
paper's "Pro" block. b_f starts at zero.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.common import accumulation_dtype
from seqjax.layers.base import Layer, Precise
from seqjax.layers.parts import Norm, merge_heads, per_head, split_heads
from seqjax.ops.look_back import empty, look_back


class FoX(Layer):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        window: int = 1024,
        qk_norm: bool = False,
        output_gate: bool = False,
        rngs: nnx.Rngs,
    ):
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.features = self.out_features = features
        self.heads, self.K, self.window = heads, per_head("features", features, heads), window
        linear = partial(nnx.Linear, features, use_bias=False, rngs=rngs)
        self.W_q, self.W_k, self.W_v, self.W_o = (linear(features) for _ in range(4))
        self.w_f, self.b_f = linear(heads), Precise(jnp.zeros(heads))
        self.q_norm = Norm(heads, self.K) if qk_norm else None
        self.k_norm = Norm(heads, self.K) if qk_norm else None
        self.W_g = linear(features) if output_gate else None

    def initial(self):
        keys = jnp.zeros((self.window - 1, self.heads, self.K))
        return empty((keys, keys, keys[:, :, 0]))

    def sequence(self, x, h, *, resets=None, mask=None, evaluator=None):
        del evaluator
        q, k, v = (split_heads(W(x), self.heads) for W in (self.W_q, self.W_k, self.W_v))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        logits = self.w_f(x).astype(accumulation_dtype(x.dtype)) + self.b_f[...][None]
        items = k, v, jax.nn.log_sigmoid(logits)
        q = q.astype(h.items[0].dtype)
        o, h = look_back(self.attend, q, items, h, resets=resets, mask=mask)
        o = merge_heads(o).astype(x.dtype)
        return self.W_o(o if self.W_g is None else jax.nn.sigmoid(self.W_g(x)) * o), h

    def attend(self, q, items, i, j, seen):
        """q [n, H, K] over k, v [m, H, K] and log f [m, H]; i and j count from the same step."""
        k, v, log_f = items
        so_far = jnp.cumsum(log_f, axis=0)
        D = jnp.take(so_far, i - j[0], axis=0)[:, None] - so_far[None]  # [n, m, H]
        scores = jnp.einsum("ihk,jhk->ijh", q, k) * self.K**-0.5 + D
        scores = jnp.where(seen[..., None], scores, jnp.finfo(scores.dtype).min)
        return jnp.einsum("ijh,jhk->ihk", jax.nn.softmax(scores, axis=1), v)
