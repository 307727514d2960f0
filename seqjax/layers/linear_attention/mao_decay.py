"""Decaying fast weights (Mao 2022, arXiv:2210.04243): elementwise decay by an outer product.

    G_t = sigmoid(W_f x_t + b_f) sigmoid(W_z x_t + b_z)^T          G [heads, key, value]
    S_t = G_t * S_{t-1} + k_t v_t^T                                S [heads, key, value]
    y_t = W_o [S_t^T q_t]                                          read after the write, per head

(Survey eq. 14, where S is transposed.) There is no feature map but the projections, no scale and
no normaliser. Every entry of S decays by itself: the states of all steps are formed, T key value of
them, by any evaluator of the linear scan. b_f and b_z start at `gate_bias`, zero by default.
eigenvalues "[-1,1]": G_t becomes 2 G_t - 1 (arXiv:2411.12537).
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import takes_flow
from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.gates import EIGENVALUES, multiplier
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.ops.linear_scan import linear_scan


@takes_flow
def elementwise(a: Array, b: Array, S: Array, *, start=None, **options):
    """All S_t = a_t * S_{t-1} + b_t for arrays [T, ...] of any shape, and the last one."""

    def flat(z):
        return z.reshape(len(z), -1)

    fresh = None if start is None else start.reshape(-1)
    states, last = linear_scan(flat(a), flat(b), S.reshape(-1), start=fresh, **options)
    return states.reshape(len(a), *S.shape), last.reshape(S.shape)


class MaoDecay(Layer):
    ops = ("linear_scan",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int | None = None,
        gate_bias: float = 0.0,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.V = heads, per_head("features", features, heads)
        self.K = key_size or self.V
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        keys, values = heads * self.K, heads * self.V
        linear = partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.W_q, self.W_k, self.W_f = (linear(features, keys) for _ in range(3))
        self.W_v, self.W_z = (linear(features, values) for _ in range(2))
        self.b_f = Precise(jnp.full(keys, gate_bias))
        self.b_z = Precise(jnp.full(values, gate_bias))
        self.W_o = linear(values, features)

    def initial(self):
        return jnp.zeros((self.heads, self.K, self.V))

    def run(self, x, h, flow):
        split = partial(split_heads, heads=self.heads)
        q, k, v = split(self.W_q(x)), split(self.W_k(x)), split(self.W_v(x))
        f = split(jax.nn.sigmoid(self.W_f(x) + self.b_f[...][None]))
        z = split(jax.nn.sigmoid(self.W_z(x) + self.b_z[...][None]))
        S, h = elementwise(
            multiplier(f[..., None] * z[:, :, None], self.eigenvalues),
            k[..., None] * v[:, :, None],
            h,
            flow=flow,
        )
        return self.W_o(merge_heads(jnp.einsum("thk,thkv->thv", q, S)).astype(x.dtype)), h
