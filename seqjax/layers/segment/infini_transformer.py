"""Infini-attention (Munkhdalai, Faruqui, Gopal 2024, arXiv:2404.07143): attention within a segment,
and linear attention to all segments before it.

The sequence is cut into segments of `length` N steps. For each head of a segment,

    A_dot = softmax(q k^T / sqrt(d)) v                     causal, within the segment; eq. 2
    A_mem = phi(q) M_{s-1} / (phi(q) z_{s-1}),   phi = elu + 1                          eq. 3
    A = sigmoid(beta) A_mem + (1 - sigmoid(beta)) A_dot                                 eq. 6
    y = W_O [A of all heads]                                                            eq. 7

and at its end the memory M [d, d] of the head, and z [d], take the segment in:

    "linear"  M_s = M_{s-1} + phi(k)^T v                                                eq. 4
    "delta"   M_s = M_{s-1} + phi(k)^T (v - phi(k) M_{s-1} / (phi(k) z_{s-1}))          eq. 5
    z_s = z_{s-1} + sum_t phi(k_t)                                                      eq. 4

Where nothing is remembered yet eq. 3 is 0 / 0: there A = A_dot, without a gate, so that a sequence
no longer than a segment is plain attention. Rotary positions turn q and k of A_dot only; the memory
knows no positions (sec. 2.1). beta, a number for each head, starts at 0: half of each.

For long sequences in little room: the state does not grow, d (d + 1) numbers a head, and the keys
and values of the up to N - 1 steps of the segment since. A step costs O(N d + d^2) a head.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Layer, option
from seqjax.nn.feature_maps import elu_plus_one
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.ops.dense_attention import attend
from seqjax.ops.positions import rotary
from seqjax.ops.segment_recurrence import segment_recurrence
from seqjax.ops.segments import SegmentState


class Compressed(NamedTuple):
    M: jax.Array  # [heads, d, d]
    z: jax.Array  # [heads, d], zero where nothing is remembered


class InfiniTransformer(Layer):
    structure = "sums over whole segments"
    learned = ""  # zeros mean that nothing is remembered

    def __init__(
        self,
        features: int,
        *,
        heads: int = 1,
        head_size: int | None = None,
        length: int = 64,
        update: str = "delta",
        rotary_fraction: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.size = heads, head_size or per_head("features", features, heads)
        self.length, self.rotary_fraction = length, rotary_fraction
        self.update = option("update", update, ("linear", "delta"))
        inner = heads * self.size
        self.W_q, self.W_k, self.W_v = (
            nnx.Linear(features, inner, use_bias=False, rngs=rngs) for _ in range(3)
        )
        self.W_o = nnx.Linear(inner, features, use_bias=False, rngs=rngs)
        self.beta = nnx.Param(jnp.zeros(heads))

    def initial(self):
        head = self.heads, self.size
        memory = Compressed(jnp.zeros((*head, self.size)), jnp.zeros(head))
        k, v = (jnp.zeros((self.length - 1, *head)) for _ in range(2))
        return SegmentState(memory, (k, v), jnp.zeros((), jnp.int32))

    def run(self, x, h, flow):
        q, k, v = (split_heads(W(x), self.heads) for W in (self.W_q, self.W_k, self.W_v))
        y, state = segment_recurrence(self.attend, self.fold, wide(q), (k, v), h, flow=flow)
        return self.W_o(merge_heads(y).astype(x.dtype)), state

    def attend(self, m, q, items, i, j, seen):
        return self.gated(self.local(q, items, i, j, seen), m, q)

    def local(self, q, items, i, j, seen):
        k, v = items
        q, k = (rotary(z, n, fraction=self.rotary_fraction) for z, n in ((q, i), (k, j)))
        return attend(q, k, v, seen, scale=self.size**-0.5)

    def gated(self, local, m, q):
        """A [n, heads, d] of A_dot and the queries that read the memory, both [n, heads, d]."""
        gate = jax.nn.sigmoid(self.beta[...].astype(local.dtype))[None, :, None]
        known = jnp.any(m.z > 0, axis=-1)[None, :, None]
        return jnp.where(known, gate * read(m, elu_plus_one(q)) + (1 - gate) * local, local)

    def fold(self, m, items):
        k, v = elu_plus_one(items[0]), items[1]
        if self.update == "delta":
            v = v - read(m, k)
        M = m.M + jnp.einsum("thk,thv->hkv", k, v)
        return Compressed(M, m.z + jnp.sum(k, axis=0))


def read(m, phi):
    """phi M / (phi z) [n, heads, d], zero where the memory has nothing of the kind."""
    mass = jnp.einsum("thk,hk->th", phi, m.z)[..., None]
    there = mass > 1e-10
    return jnp.where(there, jnp.einsum("thk,hkv->thv", phi, m.M) / jnp.where(there, mass, 1), 0)
