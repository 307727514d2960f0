"""Memformer (Wu et al. 2020, arXiv:2010.06891): a Transformer with a memory of slots.

Segments of `length` steps, read one after the other. `depth` blocks on a segment x, with a memory M
[slots, features] of those before it:

    x <- x + SA(N(x));   x <- x + CA(N(x), M);   x <- x + W_2 gelu(W_1 N(x) + b_1) + b_2
    y = N(x)

SA is self-attention with biases by distance (the buckets of T5, arXiv:1910.10683), CA cross
attention to the slots: the memory is read. Then it is written and forgets; slot m attends to itself
and to the outputs y, not to other slots. `update` "normalised", the paper's:

    w = softmax([q_m . k_m; q_m . k_y] / (tau sqrt(K)))               tau: `temperature`
    m' = w [m; W_v y]
    m <- (m' + b_m) / |m' + b_m|                                      M_0 = b / |b|

the biased memory normalisation: where nothing is written, b_m draws the slot back to where it
began. `update` "gru" is that of the community's implementation, whose numbers are known: M_0 is b
itself and

    m <- GRU(input MHA(m, [m; y]), state m)                         `updates` times, each with
    m <- m + W_2 gelu(W_1 N(m) + b_1) + b_2

By default SA sees the past only, so that steps may come one by one; the memory is written after a
whole segment. Not `causal` is the paper's encoder, in which a segment sees all of itself: then a
call ends its last segment, and a stream is cut between segments. `released`: as in that
implementation, all steps ahead share the bucket of distance 0.

The backward pass keeps the memories between segments and runs each segment again, as the paper's
memory replay back-propagation does: `seqjax.ops.segments` does so for all layers over segments.
"""

from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.classic.gru import GRU
from seqjax.nn.activations import gelu
from seqjax.nn.base import option
from seqjax.nn.gated_attention import t5_buckets
from seqjax.nn.linear import MLP, merge_heads, per_head, split_heads
from seqjax.nn.norms import NORMS, Norm, unit
from seqjax.nn.segmented import Segmented
from seqjax.nn.transformer import MultiHead
from seqjax.ops.dense_attention import attend

UPDATES = ("normalised", "gru")
LayerNorm = partial(Norm, **NORMS["layer"], eps=1e-5)


class EncoderBlock(nnx.Module):
    def __init__(self, features: int, heads: int, inner: int, rngs: nnx.Rngs):
        self.norms = nnx.List([LayerNorm(features) for _ in range(3)])
        self.self_attention, self.cross = (MultiHead(features, heads, rngs=rngs) for _ in range(2))
        self.feed = MLP(features, inner, gelu, bias=True, rngs=rngs)

    def __call__(self, x, m, seen, bias):
        z = self.norms[0](x)
        x = x + self.self_attention(z, z, seen, bias=bias)
        x = x + self.cross(self.norms[1](x), m)
        return x + self.feed(self.norms[2](x))


class Memformer(Segmented):
    block = True
    structure = "slots that attend, from segment to segment"
    learned = ""  # b is a parameter

    def __init__(
        self,
        features: int,
        *,
        length: int = 64,
        slots: Annotated[int, Range(1)] = 8,
        depth: Annotated[int, Range(1)] = 1,
        heads: int = 4,
        expansion: float = 4.0,
        update: str = "normalised",
        updates: Annotated[int, Range(1)] = 1,
        temperature: float = 1.0,
        causal: bool = True,
        released: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.length, self.slots, self.causal, self.released = length, slots, causal, released
        self.update, self.updates = option("update", update, UPDATES), updates
        self.temperature = temperature
        if update == "normalised" and updates > 1:
            raise ValueError(f"updates={updates} is of update 'gru': a slot is normalised once")
        inner = max(1, round(expansion * features))
        self.blocks = nnx.List([EncoderBlock(features, heads, inner, rngs) for _ in range(depth)])
        self.norm = LayerNorm(features)
        self.distances = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (32, heads)))
        self.b = nnx.Param(nnx.initializers.normal(1.0)(rngs.params(), (slots, features)))
        self.write: Any
        if update == "gru":
            self.write = MultiHead(features, heads, rngs=rngs)
            self.gru = GRU(features, reset="after", rngs=rngs)
            self.write_norm = LayerNorm(features)
            self.write_feed = MLP(features, inner, gelu, bias=True, rngs=rngs)
        else:
            self.write = SlotAttention(features, heads, rngs=rngs)

    def memory(self):
        b = self.b[...]
        return b if self.update == "gru" else unit(b)

    def segment(self, m, x, flow):
        C, now = len(x), m.now.astype(x.dtype)
        y = self.encode(now, x, flow.joined(C, causal=self.causal))
        last = C - 1 if flow.mask is None else jnp.sum(flow.mask) - 1
        return y, self.written(now, y, flow.joined(C, causal=False)[last])

    def encode(self, m, x, seen):
        """y [C, features] of x, whose steps see those of `seen` [C, C]."""
        place = np.arange(len(x))
        away = place[:, None] - place[None]
        one_sided = self.causal or self.released
        buckets = t5_buckets(np.maximum(away, 0) if one_sided else away, one_sided)
        bias = jnp.moveaxis(self.distances[...][buckets], 2, 0)
        for block in self.blocks:
            x = block(x, m, seen, bias)
        return self.norm(x)

    def written(self, m, y, seen):
        """The memory after outputs y [C, features], of which `seen` [C] are of its segment."""
        itself = jnp.eye(len(m), dtype=bool)
        seen = jnp.concatenate([itself, jnp.broadcast_to(seen[None], (len(m), len(y)))], axis=1)
        if self.update == "normalised":
            return unit(self.write(m, y, seen, self.temperature) + self.b[...])
        for _ in range(self.updates):
            u = self.write(m, jnp.concatenate([m, y]), seen)
            m = jax.vmap(self.gru.step)(m, self.gru.drive(u))
            m = m + self.write_feed(self.write_norm(m))
        return m


class SlotAttention(nnx.Module):
    """w [m; W_v y]."""

    def __init__(self, features: int, heads: int, *, rngs: nnx.Rngs):
        per_head("features", features, heads)
        self.heads = heads
        self.W_q, self.W_k, self.W_v = (
            nnx.Linear(features, features, use_bias=False, rngs=rngs) for _ in range(3)
        )

    def __call__(self, m, y, seen, temperature):
        q, k = self.W_q(m), self.W_k(jnp.concatenate([m, y]))
        v = jnp.concatenate([m, self.W_v(y)])
        q, k, v = (split_heads(z, self.heads) for z in (q, k, v))
        return merge_heads(attend(q, k, v, seen, scale=q.shape[2] ** -0.5 / temperature))
