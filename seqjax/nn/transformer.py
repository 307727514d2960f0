"""The Transformer as a part of other things: pre-norm attention and a gated feed-forward block.

    x += W_o [softmax_j(q_i^h . k_j^h / sqrt(K)) v_j^h]_h        over the j that i `sees`
    x += W_3 (silu(W_1 x) * W_2 x)                               arXiv:2002.05202

each on RMS-normalised x, rotary positions on q and k (arXiv:2104.09864), a norm after the last
block. For one example [N, features]; nothing is causal but what `sees` leaves out.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.nn.linear import GLU, merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.ops.dense_attention import attend
from seqjax.ops.positions import rotary


class Block(nnx.Module):
    def __init__(self, features: int, *, heads: int, expansion: float, rngs: nnx.Rngs):
        per_head("features", features, heads)
        self.heads = heads
        self.norm, self.feed_norm = Norm(features), Norm(features)
        self.W_q, self.W_k, self.W_v, self.W_o = (
            nnx.Linear(features, features, use_bias=False, rngs=rngs) for _ in range(4)
        )
        self.feed = GLU(features, max(1, round(expansion * features)), rngs=rngs)

    def __call__(self, x: Array, positions: Array, sees: Array | None) -> Array:
        z = self.norm(x)
        q, k, v = (split_heads(W(z), self.heads) for W in (self.W_q, self.W_k, self.W_v))
        q, k = rotary(q, positions), rotary(k, positions)
        x = x + self.W_o(merge_heads(attend(q, k, v, sees, scale=q.shape[2] ** -0.5)))
        return x + self.feed(self.feed_norm(x))


class MultiHead(nnx.Module):
    """W_o [attend(W_q x, W_k z, W_v z)]_h, of x [n, features] to z [m, features]; seen and further
    options are those of `dense_attention.attend`, scaled by K^-1/2."""

    def __init__(self, features: int, heads: int, *, bias: bool = True, rngs: nnx.Rngs):
        per_head("features", features, heads)
        self.heads = heads
        self.W_q, self.W_k, self.W_v, self.W_o = (
            nnx.Linear(features, features, use_bias=bias, rngs=rngs) for _ in range(4)
        )

    def __call__(self, x: Array, z: Array, seen: Array | None = None, **options: Any) -> Array:
        return self.read(x, *self.kept(z), seen, **options)

    def kept(self, z: Array) -> tuple[Array, Array]:
        """Keys and values [m, heads, K] of z."""
        return split_heads(self.W_k(z), self.heads), split_heads(self.W_v(z), self.heads)

    def read(self, x: Array, k: Array, v: Array, seen: Array | None = None, **options: Any):
        q = split_heads(self.W_q(x), self.heads)
        return self.W_o(merge_heads(attend(q, k, v, seen, scale=q.shape[2] ** -0.5, **options)))


class Transformer(nnx.Module):
    """x [N, features] to [N, features]; positions int [N] (None: 0, 1, ...); sees bool [N, N]."""

    def __init__(
        self, features: int, *, depth: int, heads: int, expansion: float = 2.0, rngs: nnx.Rngs
    ):
        self.blocks = nnx.List(
            [Block(features, heads=heads, expansion=expansion, rngs=rngs) for _ in range(depth)]
        )
        self.norm = Norm(features)

    def __call__(self, x: Array, positions: Array | None = None, sees: Array | None = None):
        positions = jnp.arange(len(x)) if positions is None else positions
        for block in self.blocks:
            x = block(x, positions, sees)
        return self.norm(x)


def causal(size: int) -> Array:
    """sees [size, size]: every place sees itself and those before it."""
    return jnp.tril(jnp.ones((size, size), bool))


def normalise_memory(m: Array) -> Array:
    """m / sqrt(mean m^2 + eps) over the last axis: every memory token has length sqrt(features).

    eps is the machine's; no weight. Of zeros: zeros, with derivative zero. The formula's there is
    eps^-1/2 = 2900 a step, which the release follows: over a sequence of zeros it overflows.
    """
    square = jnp.mean(m * m, axis=-1, keepdims=True)
    return m * jnp.where(square > 0, lax.rsqrt(square + jnp.finfo(m.dtype).eps), 0)
