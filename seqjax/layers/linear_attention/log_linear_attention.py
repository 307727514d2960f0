"""Log-linear attention (Guo et al. 2025, arXiv:2506.04761), with the gates of Mamba-2.

    y_t = W_o RMSNorm(SiLU(W_z x_t) * o_t)
    o_t = sum_l lambda_t[l] q_t^T S^l_t                a state S^l per bucket of the past
    q, k = SiLU(W x),  v_t = dt_t SiLU(W_v x_t)        per head; q and k are not scaled
    dt_t = softplus(W_dt x_t + b_dt),   log a_t = -exp(A_log) dt_t           per head, as Mamba-2
    lambda_t[l] = softplus(Lambda[l] * (W_lambda x_t)[l])    per head and level, Lambda = 1 at first

The past of step t lies in buckets of 1, 2, 4, ... steps, the newest the smallest: log2 T states in
place of one, each read by a weight of its own (`seqjax.ops.log_linear_attention`). `levels` of
them serve 2^(levels - 1) steps; beyond that the last takes all that is older.

lambda, and the plain lambda = 1 of linear attention it generalises, are the released code's
(log-linear Mamba-2). Of that layer its convolution and its skip D x are not here. With fewer
`key_heads` than heads each q and k serves several heads in a row, as its groups do.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.common import accumulation_dtype
from seqjax.nn.base import Layer, Precise
from seqjax.nn.initialisation import time_step_bias
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.log_linear_attention import Levels, log_linear_attention


class LogLinearAttention(Layer):
    ops = ("log_linear_attention",)

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_heads: int | None = None,
        key_size: int | None = None,
        levels: int = 16,
        rngs: nnx.Rngs,
    ):
        if not 1 <= levels <= 31:
            raise ValueError(f"levels must lie in [1, 31], got {levels}")
        self.features = self.out_features = features
        self.heads, self.levels, self.V = heads, levels, per_head("features", features, heads)
        self.K, self.key_heads = key_size or self.V, key_heads or heads
        per_head("heads", heads, self.key_heads)
        linear = partial(nnx.Linear, features, use_bias=False, rngs=rngs)
        self.W_q, self.W_k = (linear(self.key_heads * self.K) for _ in range(2))
        self.W_v, self.W_z, self.W_o = linear(features), linear(features), linear(features)
        self.W_dt, self.W_lambda = linear(heads), linear(heads * levels)
        self.b_dt = Precise(time_step_bias(rngs.params(), heads, 1e-3, 0.1))
        self.A_log = Precise(jnp.log(jnp.arange(1.0, heads + 1)))
        self.Lambda = Precise(jnp.ones((heads, levels)))
        self.norm = Norm(features, eps=1e-5)

    def initial(self):
        S = jnp.zeros((self.levels, self.heads, self.K, self.V))
        return Levels(S, jnp.zeros((), jnp.int32))

    def run(self, x, h, flow):
        split, precise = partial(split_heads, heads=self.heads), accumulation_dtype(x.dtype)
        q, k = (split_heads(jax.nn.silu(W(x)), self.key_heads) for W in (self.W_q, self.W_k))
        v = split(jax.nn.silu(self.W_v(x)))
        dt = jax.nn.softplus(self.W_dt(x).astype(precise) + self.b_dt[...][None])
        o, h = log_linear_attention(
            q,
            k,
            wide(v) * dt[..., None],
            -jnp.exp(self.A_log[...])[None] * dt,
            jax.nn.softplus(self.Lambda[...][None] * split(self.W_lambda(x)).astype(precise)),
            h,
            flow=flow,
        )
        o = self.norm(jax.nn.silu(self.W_z(x)) * merge_heads(o))
        return self.W_o(o.astype(x.dtype)), h
