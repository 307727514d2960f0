"""RWKV-5 "Eagle" time mixing (Peng et al. 2024, arXiv:2404.05892).

    x^j_t = x_t + (x_{t-1} - x_t) * mu_j,   j in r, k, v, g         token shift
    r = W_r x^r,  k = W_k x^k,  v = W_v x^v,  g = SiLU(W_g x^g)
    w = exp(-exp(w_raw))                                            per key, constant
    wkv_t = S_{t-1} + Diag(u) k_t v_t^T                                                   eq. 18
    S_t   = Diag(w) S_{t-1} + k_t v_t^T           S [heads, K, K]                         eq. 19
    y_t   = W_o (g_t * LayerNorm(r_t wkv_t))      the norm over each head

The bonus u is for the present token, which has not decayed; the past is read before it decays.
The release divides r wkv by 8 before a norm with epsilon 1e-5: our epsilon is 64e-5 of what is not
divided. Its parameters time_mix weigh x_t: they are 1 - mu.

The initialisation is the release's (RWKV-LM, x052): W_o zero, W_k and W_g small.
`block`, `inner`, `depth`: see `seqjax.layers.rwkv.parts`.
"""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.rwkv.parts import RWKV, TimeState, lerp, linear
from seqjax.nn.base import Group, Precise
from seqjax.nn.convolution import token_shift
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.linear_attention import linear_attention


class RWKV5(RWKV):
    ops = ("linear_attention",)
    version = 5
    sequence_parallel = True
    trained: ClassVar = {"w": Group(rate=2.0, decay=0.0)}  # the release's layerwise_lr: time_decay

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        block: bool = False,
        inner: int | None = None,
        depth: float = 0.0,
        key_size: int | None = None,
        value_size: int | None = None,
        norm_eps: float = 1e-5,
        head_eps: float = 64e-5,
        rngs: nnx.Rngs,
    ):
        C = self.features = self.out_features = features
        self.heads = heads
        self.K, self.V = (
            n or per_head("features", features, heads) for n in (key_size, value_size)
        )
        keys, values = heads * self.K, heads * self.V
        place, rest = jnp.arange(C) / C, 1 - depth
        r, k = place ** (rest / 2), place**rest
        self.add_shift(1 - jnp.stack([r, k, k + 0.3 * depth, r]), k, rngs)
        channel = jnp.arange(float(keys))
        along = channel / max(1, keys - 1)
        self.w = Precise(-6 + 5 * along ** (0.7 + 1.3 * depth))
        u = depth * (1 - along) + 0.1 * ((channel + 1) % 3 - 1)
        self.u = Precise(u.reshape(heads, self.K))
        self.W_r, self.W_v = linear(C, keys, 1.0, rngs), linear(C, values, 1.0, rngs)
        self.W_k, self.W_g = linear(C, keys, 0.1, rngs), linear(C, values, 0.1, rngs)
        self.norm = Norm(heads, self.V, centre=True, bias=True, eps=head_eps)
        self.W_o = linear(values, C, 0.0, rngs)
        self.add_block(self.version, block, inner=inner, depth=depth, norm_eps=norm_eps, rngs=rngs)

    def add_shift(self, mu, whole, rngs):
        """mu [4, C] of r, k, v, g where the previous token has the share 1 - whole of all."""
        del whole, rngs
        self.mu = nnx.Param(mu)

    def shifted(self, x, before):
        """x^r, x^k, x^v, x^g, each [T, C], and log w [T, heads K]."""
        log_w = jnp.broadcast_to(-jnp.exp(self.w[...])[None], (len(x), self.w.size))
        return (*lerp(x, before, self.mu[...]), log_w)

    def remembered(self):
        return jnp.zeros((self.heads, self.K, self.V))

    def time_mixing(self, x, h, flow):
        before, window = token_shift(x, h.window, flow=flow)
        x_r, x_k, x_v, x_g, log_w = self.shifted(x, before)
        split = partial(split_heads, heads=self.heads)
        y, S = linear_attention(
            split(self.W_r(x_r)),
            split(self.W_k(x_k)),
            wide(split(self.W_v(x_v))),
            split(log_w),
            h.S,
            bonus=self.u[...],
            scale=1.0,
            flow=flow,
        )
        y = jax.nn.silu(self.W_g(x_g)) * merge_heads(self.norm(y)).astype(x.dtype)
        return self.W_o(y), TimeState(window, S)
