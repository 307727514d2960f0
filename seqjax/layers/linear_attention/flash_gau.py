"""FLASH (Hua et al. 2022, arXiv:2202.10447 sec. 3.2): mixed-chunk attention in a gated unit.

    n = Norm(x);   u, v, z = silu(W n + b)                    as in `gau`
    q, q', k, k' = kappa * z + mu                             four views of one z [size]
    inside a chunk of G = `group` steps, all pairs:
        o_i = sum_{j <= i} relu(q_i . k_j / G + b_{i-j})^2 v_j
    over all chunks before it, a linear attention whose state moves once per chunk:
        o_i += S^T q'_i / G,    S = sum over past chunks of k'_j v_j^T      S [size, inner]
    y = x + W_o (u * o) + b_o

Cost O(T G) and a state that does not grow. Chunks count from the start and from each reset; a
masked step is not counted. `shift` moves half of n's channels one step back first (not of the
paper, but of a wide-spread implementation, whose conventions of scale these are: G divides both
parts, the bias is added after). Not `causal`, the chunk is seen both ways and the linear part sums
over all T steps, its own chunk included, over T; then nothing streams, and all pairs are formed.
The bias is one of `gated_attention`'s.

The state is S, and k, k', v of the steps of the chunk that is not full yet.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Layer
from seqjax.nn.convolution import token_shift
from seqjax.nn.gated_attention import INIT, RelativeBias, Views, weigh
from seqjax.nn.norms import Norm
from seqjax.ops.positions import places
from seqjax.ops.segment_recurrence import segment_recurrence
from seqjax.ops.segments import SegmentState


class FlashState(NamedTuple):
    chunk: SegmentState  # of S [size, inner]; k, k' [group - 1, size], v [group - 1, inner]
    window: Any  # [1, features // 2], with `shift`


class FlashGAU(Layer):
    block = True
    structure = "sum of matrices, window of the past"

    def __init__(
        self,
        features: int,
        *,
        size: int = 128,
        expansion: float = 2.0,
        group: int = 256,
        bias: str = "rotary",
        shift: bool = False,
        causal: bool = True,
        rngs: nnx.Rngs,
    ):
        if group < 1:
            raise ValueError(f"group must be at least 1, got {group}")
        self.features = self.out_features = features
        self.size, self.inner, self.length = size, int(expansion * features), group
        self.shift, self.causal = shift, causal
        self.side_ops = ("short_convolution",) if shift else ()
        self.norm = Norm(features, centre=True, bias=True, eps=1e-5)

        def linear(n, m):
            return nnx.Linear(n, m, kernel_init=INIT, rngs=rngs)

        self.W_u, self.W_v = linear(features, self.inner), linear(features, self.inner)
        self.W_z, self.views = linear(features, size), Views(4, size, rngs=rngs)
        self.bias = RelativeBias(bias, group, size, causal=causal, rngs=rngs)
        self.W_o = linear(self.inner, features)

    def initial(self):
        S = jnp.zeros((self.size, self.inner))
        k, v = (jnp.zeros((self.length - 1, n)) for n in S.shape)
        window = jnp.zeros((1, self.features // 2)) if self.shift else None
        return FlashState(SegmentState(S, (k, k, v), jnp.zeros((), jnp.int32)), window)

    def run(self, x, h, flow):
        n, window = self.norm(x), None
        if self.shift:
            half = self.features // 2
            moved, window = token_shift(n[:, :half], h.window, flow=flow)
            n = jnp.concatenate([moved, n[:, half:]], axis=1)
        u, v, z = (jax.nn.silu(W(n)) for W in (self.W_u, self.W_v, self.W_z))
        q, q_linear, k, k_linear = self.views(z)
        precise = h.now.chunk.memory.dtype
        queries = q.astype(precise), q_linear.astype(precise)
        items = tuple(w.astype(precise) for w in (k, k_linear, v))
        if self.causal:
            o, chunk = segment_recurrence(
                self.attend, self.fold, queries, items, h.chunk, flow=flow
            )
        else:
            o, chunk = self.both_ways(queries, items, flow), h.now.chunk
        return x + self.W_o(u * o.astype(x.dtype)), FlashState(chunk, window)

    def attend(self, S, queries, items, i, j, seen):
        (q, q_linear), (k, _, v) = queries, items
        bias = self.bias(i[:, None] - j[None])
        o = weigh("relu2", q @ k.T, bias, seen, self.length) @ v
        return o + q_linear @ S / self.length

    def fold(self, S, items):
        _, k_linear, v = items
        return S + k_linear.T @ v

    def both_ways(self, queries, items, flow):
        (q, q_linear), (k, k_linear, v), T = queries, items, len(queries[0])
        place, _ = places(jnp.int32(0), T, resets=flow.resets, mask=flow.mask)
        all_steps, chunk = flow.joined(T, causal=False), place // self.length
        seen = all_steps & (chunk[:, None] == chunk[None])
        bias = self.bias(place[:, None] - place[None])
        o = weigh("relu2", q @ k.T, bias, seen, self.length) @ v
        linear = jnp.where(all_steps, q_linear @ k_linear.T, 0) @ v
        return o + linear / jnp.sum(all_steps, axis=1, keepdims=True).astype(v.dtype)
