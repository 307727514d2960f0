"""LightNet (Qin et al. 2024, arXiv:2405.21022): an additive linear recurrence.

    z_t = log(exp(z_{t-1}) + exp(k_t))                               z [heads, K]
    S_t = Diag(exp(z_{t-1} - z_t)) S_{t-1} + exp(k_t - z_t) v_t^T    S [heads, K, V]
    o_t = K^-1/2 SiLU(q_t) S_t                                       read after the write
    y_t = W_o (RMSNorm(o_t) * SiLU(W_g2 W_g1 x_t))                   the norm over all heads

so that row i of S is the mean of the values so far, weighted by exp(k_i): decays that only ever
compare steps with each other, and so may be computed in one pass over data of several dimensions.
Here time is the one dimension. Useful where what counts is marked by its own key, at any distance.

z starts at -inf; in a learned start at 0, since out of a weight of exp(-inf) no gradient comes. A
step that finds z = -inf has a decay of 1, as released. By default heads have 128 keys each and W_g1
128 rows, as released, where q, k and v also pass through conv(.), without an activation, with
`conv` > 0. The norm's epsilon there is 1e-6 whatever its option. Not here, of the paper:
positions in several dimensions (MD-TPE, MD-LRPE).
"""

from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.ranges import Range
from seqjax.layers.linear_attention.abc import log_sum, running_softmax
from seqjax.nn.base import Layer, option
from seqjax.nn.convolution import ShortConv, convolved
from seqjax.nn.linear import Bottleneck, merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import NORMS, Norm
from seqjax.ops.linear_attention import linear_attention


class LightNetState(NamedTuple):
    S: Array  # [heads, K, V]
    z: Array  # [heads, K]
    window: Any = ()  # of the short convolution

    def canonical(self):
        return self._replace(z=jnp.exp(self.z))


class LightNet(Layer):
    ops = ("linear_attention",)
    side_ops = (log_sum.structure,)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int = 128,
        rank: int = 128,
        norm: str = "rms",
        conv: Annotated[int, Range(0)] = 0,
        conv_bias: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.K = heads, key_size
        self.V = per_head("features", features, heads)
        linear = partial(nnx.Linear, features, use_bias=False, rngs=rngs)
        self.W_q, self.W_k = linear(heads * key_size), linear(heads * key_size)
        self.W_v, self.W_o = linear(features), linear(features)
        self.W_g = Bottleneck(features, rank, features, rngs=rngs)
        channels = 2 * heads * key_size + features
        self.conv = ShortConv(channels, conv, bias=conv_bias, rngs=rngs) if conv else None
        self.norm = Norm(features, eps=1e-6, **NORMS[option("norm", norm, NORMS)])

    def initial(self):
        S = jnp.zeros((self.heads, self.K, self.V))
        window = () if self.conv is None else self.conv.initial()
        return LightNetState(S, jnp.full((self.heads, self.K), -jnp.inf), window)

    def run(self, x, h, flow):
        qkv, window = convolved(self.conv, (self.W_q(x), self.W_k(x), self.W_v(x)), h.window, flow)
        q, k, v = (wide(split_heads(z, self.heads)) for z in qkv)
        share, log_a, z = running_softmax(k, h.z, flow)
        o, S = linear_attention(jax.nn.silu(q), share, v, log_a, h.S, scale=self.K**-0.5, flow=flow)
        y = self.norm(merge_heads(o)).astype(x.dtype) * jax.nn.silu(self.W_g(x))
        return self.W_o(y), LightNetState(S, z, window)
