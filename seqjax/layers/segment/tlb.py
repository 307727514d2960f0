"""Temporal latent bottleneck (Didolkar et al. 2022, arXiv:2205.14794): a fast stream within chunks
of `length` steps, and a slow one, `slots` vectors s, that is renewed once a chunk.

    x = x + p,   s = s + p_s                             learned positions, in every chunk
    `rounds` times:   x = Self(x), `depth` times;   x = Cross(x, s)        perceptual module
    `updates` times:  s = Cross(s, x)                                      s after the chunk

    Self(x) = F(x + W_o attend(q, k, v)),   q, k, v of LN(x)
    Cross(x, z) = F(x + W_o attend(q, k, v)),   q of LN_q(x), k and v of LN_k(z)
    F(x) = x + W_2 gelu(W_1 LN(x) + b_1) + b_2

x reads the s that the chunk began with, s reads the x that the chunk ends with (sec. 2). Every step
reads all of s, which is the same for all steps of a chunk.

Self is causal: that of the paper's language models. Not `causal`, it is the encoder of its
benchmark: a step sees all of its chunk, and a stream is cut between chunks; a call ends its last
one, also where it is not whole.

For long sequences of which little has to be kept: s is a bottleneck of `slots` x features numbers,
and what is fast does not pass it. A step of a stream costs a run over its chunk.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from seqjax.nn.linear import MLP, merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.nn.segmented import Segmented
from seqjax.ops.dense_attention import attend
from seqjax.ops.positions import places

INIT = nnx.initializers.normal(0.02)


class Sublayer(nnx.Module):
    """Self or Cross: x [n, features], which looks at itself or at z [m, features]."""

    def __init__(self, features: int, heads: int, wide: int, *, cross: bool, rngs: nnx.Rngs):
        self.heads = heads
        self.W_q, self.W_k, self.W_v, self.W_o = (
            nnx.Linear(features, features, use_bias=False, rngs=rngs) for _ in range(4)
        )
        self.norm_q, self.norm = (Norm(features, centre=True, bias=True) for _ in range(2))
        self.norm_k: Any = Norm(features, centre=True, bias=True) if cross else None
        self.feed = MLP(features, wide, bias=True, rngs=rngs)

    def __call__(self, x, z=None, seen=None):
        q = self.norm_q(x)
        kv = q if self.norm_k is None else self.norm_k(z)
        q, k, v = (
            split_heads(W(z), self.heads)
            for W, z in ((self.W_q, q), (self.W_k, kv), (self.W_v, kv))
        )
        x = x + self.W_o(merge_heads(attend(q, k, v, seen, scale=q.shape[2] ** -0.5)))
        return x + self.feed(self.norm(x))


class TLB(Segmented):
    block = True
    structure = "attention from chunk to chunk"

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        length: int = 16,
        slots: int = 4,
        depth: int = 1,
        rounds: int = 1,
        updates: int = 1,
        expansion: float = 2.0,
        causal: bool = True,
        rngs: nnx.Rngs,
    ):
        per_head("features", features, heads)
        self.features = self.out_features = features
        self.length, self.slots, self.causal = length, slots, causal
        wide = max(1, round(expansion * features))

        def sublayers(count, cross):
            return nnx.List(
                [Sublayer(features, heads, wide, cross=cross, rngs=rngs) for _ in range(count)]
            )

        self.p = nnx.Param(INIT(rngs.params(), (length, features)))
        self.p_s = nnx.Param(INIT(rngs.params(), (slots, features)))
        self.own = nnx.List([sublayers(depth, False) for _ in range(rounds)])
        self.reads, self.writes = sublayers(rounds, True), sublayers(updates, True)

    def memory(self):
        return jnp.zeros((self.slots, self.features))

    def segment(self, m, x, flow):
        C = self.length
        place, _ = places(jnp.zeros((), jnp.int32), C, resets=flow.resets)
        x = x + self.p[...][place].astype(x.dtype)
        s = m.now.astype(x.dtype) + self.p_s[...].astype(x.dtype)
        seen = flow.joined(C, causal=self.causal)
        for own, read in zip(self.own, self.reads):
            for sublayer in own:
                x = sublayer(x, seen=seen)
            x = read(x, s)
        last = C - 1 if flow.mask is None else jnp.sum(flow.mask) - 1
        its = jnp.broadcast_to(flow.joined(C, causal=False)[last][None], (self.slots, C))
        for write in self.writes:
            s = write(s, x, its)
        return x, s
