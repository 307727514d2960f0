"""Forgetting Transformer (Lin et al. 2025, arXiv:2503.02130): softmax attention that forgets.

    o_i = softmax_j(K^-1/2 q_i . k_j + D_ij) v_j,   D_ij = sum_{l = j+1 .. i} log f_l     per head
    f_t = sigmoid(w_f x_t + b_f)                    one forget gate per head, b_f = 0 at first
    q, k, v = W x,   y_t = W_o o_t

`scale` takes the place of K^-1/2; with fewer `kv_heads` each k and v serves several heads of q in a
row.

D takes the place of positions. The paper looks back without limit; here `window` steps are
remembered, with their forget gates, which is the same while the sequence is no longer.

pro: the attention of the paper's "Pro" block. Keys and values are shifted by a share that the token
decides, and all but the values normalised, per head:

    k_t = RMSNorm(alpha_t W_k x_{t-1} + (1 - alpha_t) W_k x_t),   alpha_t = sigmoid(w_k x_t)
    v_t the same with w_v, without a norm;   q_t = RMSNorm(W_q x_t)
    y_t = W_o (sigmoid(W_g x_t) * RMSNorm(o_t))

or some of it: "shift" of keys and values, "qk_norm", "output_norm", "output_gate" (the paper's
ablations).

path: positions that depend on the data, as in PaTH attention (Yang et al. 2025, arXiv:2505.16381,
there "PaTH-FoX"): between j and i the key passes the reflections of all steps in between,

    q_i . k_j  becomes  q_i^T H_i H_{i-1} .. H_{j+1} k_j,   H_l = I - beta_l w_l w_l^T
    w = unit(SiLU(conv(W_2 W_1 x))) per head, the rank 32, the convolution 3 wide
    beta = 2 sigmoid(W_beta x + b_beta)

The products of a block are those of the delta rule (WY): with lower triangles Q W^T, W K^T, W W^T
(the last two strict) all of them are Q K^T - (Q W^T) (I + Diag(beta) W W^T)^-1 Diag(beta) W K^T.

The state is the cache of k, v and log f (and w and beta), and with `pro` the last W_k x and W_v x,
with `path` the window of the convolution.

Of the release's options not here: forget gates that see no input (ablations), rotary positions,
which the paper's model does without, shifting k or v alone, other activations of the output gate,
and pruning what has decayed below a tolerance, which is a way to compute.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.scipy.linalg import solve_triangular

from seqjax.core.common import accumulation_dtype
from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.convolution import ShortConv, token_shift
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm, unit
from seqjax.ops.dense_attention import attend, forgotten
from seqjax.ops.heads import share_heads
from seqjax.ops.look_back import Cache, empty, look_back
from seqjax.ops.softmax_attention import softmax_attention


class FoXState(NamedTuple):
    cache: Cache
    window: Array | None = None  # [1, 2 features]
    conv: Array | None = None  # [2, features]


PRO = ("shift", "qk_norm", "output_norm", "output_gate")


class Pro(nnx.Module):
    """What the Pro block adds to the projections; what is left out is None."""

    def __init__(
        self,
        features: int,
        heads: int,
        kv_heads: int,
        parts: Sequence[str],
        *,
        norm_eps: float,
        rngs: nnx.Rngs,
    ):
        linear = partial(nnx.Linear, features, use_bias=False, rngs=rngs)
        norm, size = partial(Norm, eps=norm_eps), features // heads
        self.w_kv = linear(2 * kv_heads) if "shift" in parts else None
        self.q_norm = norm(heads, size) if "qk_norm" in parts else None
        self.k_norm = norm(kv_heads, size) if "qk_norm" in parts else None
        self.norm = norm(heads, size) if "output_norm" in parts else None
        self.W_g = linear(features) if "output_gate" in parts else None


class Path(nnx.Module):
    """The reflections between a key and a query."""

    def __init__(self, features: int, heads: int, keys: int, *, rank: int = 32, rngs: nnx.Rngs):
        self.heads = heads
        self.W_1 = nnx.Linear(features, rank, use_bias=False, rngs=rngs)
        self.W_2 = nnx.Linear(rank, keys, use_bias=False, rngs=rngs)
        self.W_beta = nnx.Linear(features, heads, rngs=rngs)
        self.conv = ShortConv(keys, 3, bias=False, rngs=rngs)

    def __call__(self, x, window, flow):
        """w [T, heads, K] and beta [T, heads], and the next window."""
        w, window = self.conv(self.W_2(self.W_1(x)), window, flow)
        w = unit(split_heads(jax.nn.silu(w), self.heads))
        return (w, 2 * jax.nn.sigmoid(self.W_beta(x))), window


class FoX(Layer):
    structure = "window of the past"

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        window: int = 1024,
        scale: float | None = None,
        pro: bool | Sequence[str] = False,
        path: bool = False,
        norm_eps: float = 1e-6,
        rngs: nnx.Rngs,
    ):
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.features = self.out_features = features
        self.heads, self.K, self.window = heads, per_head("features", features, heads), window
        self.kv_heads, self.scale = kv_heads or heads, self.K**-0.5 if scale is None else scale
        per_head("heads", heads, self.kv_heads)
        keys = self.kv_heads * self.K
        linear = partial(nnx.Linear, features, use_bias=False, rngs=rngs)
        self.W_q, self.W_k, self.W_v, self.W_o = map(linear, (features, keys, keys, features))
        self.w_f, self.b_f = linear(heads), Precise(jnp.zeros(heads))
        parts = PRO if pro is True else [option("part of pro", name, PRO) for name in pro or ()]
        self.pro = Pro(features, heads, self.kv_heads, parts, norm_eps=norm_eps, rngs=rngs)
        self.shift = "shift" in parts
        self.side_ops = ("short_convolution",) if self.shift else ()
        self.path = Path(features, self.kv_heads, keys, rngs=rngs) if path else None
        self.sequence_parallel = not path
        if not path:
            self.ops = ("softmax_attention",)

    def initial(self):
        keys = jnp.zeros((self.window - 1, self.kv_heads, self.K))
        window = jnp.zeros((1, 2 * self.kv_heads * self.K)) if self.shift else None
        items = keys, keys, jnp.zeros((self.window - 1, self.heads))
        if self.path is None:
            return FoXState(empty(items), window)
        return FoXState(empty((*items, keys, keys[:, :, 0])), window, self.path.conv.initial())

    def run(self, x, h, flow):
        window = conv = None
        q = split_heads(self.W_q(x), self.heads)
        kv = jnp.concatenate([self.W_k(x), self.W_v(x)], axis=1)
        if self.pro.w_kv is not None:
            before, window = token_shift(kv, h.window, flow=flow)
            alpha = jnp.repeat(jax.nn.sigmoid(self.pro.w_kv(x)), self.K, axis=1)
            kv = kv + alpha * (before - kv)
        k, v = (split_heads(z, self.kv_heads) for z in jnp.split(kv, 2, axis=1))
        if self.pro.q_norm is not None and self.pro.k_norm is not None:
            q, k = self.pro.q_norm(q), self.pro.k_norm(k)
        logits = self.w_f(x).astype(accumulation_dtype(x.dtype)) + self.b_f[...][None]
        log_f = jax.nn.log_sigmoid(logits)
        if self.path is None:
            o, cache = softmax_attention(q, k, v, h.cache, log_f=log_f, scale=self.scale, flow=flow)
        else:
            passed, conv = self.path(x, h.conv, flow)
            q, items = q.astype(h.now.cache.items[0].dtype), (k, v, log_f, *passed)
            o, cache = look_back(self.attend, q, items, h.cache, flow=flow)
        if self.pro.norm is not None:
            o = self.pro.norm(o)
        if self.pro.W_g is not None:
            o = o * split_heads(jax.nn.sigmoid(self.pro.W_g(x)), self.heads)
        return self.W_o(merge_heads(o).astype(x.dtype)), FoXState(cache, window, conv)

    def attend(self, q, items, i, j, seen):
        """With `path`: q [n, H, K] over k, v and w [m, G, K], log f [m, H] and beta [m, G]."""
        k, v, log_f, *path = items
        keys, w, beta = (share_heads("fox", "k", z, q.shape[1], axis=1) for z in (k, *path))
        heads = jax.vmap(reflected, (1, 1, 1, 1, None))
        passed = heads(q, keys, w, beta, j[None] <= i[:, None])
        bias = forgotten(log_f, len(q)) - self.scale * passed
        return attend(q, k, v, seen, scale=self.scale, bias=bias)


def reflected(q, k, w, beta, up_to):
    """[n, m]: what the reflections take from q_i . k_j, for one head; up_to [n, m]: j <= i."""
    lower = jnp.where(up_to, q @ w.T, 0)
    ww, wk = (beta[:, None] * jnp.tril(w @ z.T, -1) for z in (w, k))
    return lower @ solve_triangular(ww, wk, lower=True, unit_diagonal=True)
