"""Transformer-XL (Dai et al. 2019, arXiv:1901.02860): attention that recurs over segments.

The sequence is cut into segments of `length` L. A step at place p of its segment attends to itself,
to the p steps of the segment before it, and to the last `memory` M steps before the segment:

    q_i = W_q x_i,   k_j = W_k x_j,   v_j = W_v x_j                                   sec. 3.3
    A_ij = (q_i + u) . k_j + (q_i + v) . W_r R_{i-j}                       eq. in sec. 3.3
    a_i = sum_j softmax_j(A_ij / sqrt(d)) v_j          heads of size d, concatenated
    x'_i = LN(x_i + W_o a_i)
    y_i = LN(x'_i + W_2 relu(W_1 x'_i + b_1) + b_2)

R_n = [sin(n w), cos(n w)], w_k = 10000^(-2k / features), encodes the distance n = i - j. With
`pre_norm` the norms are on the inputs of both sublayers instead (the official code's option);
`feed_forward=0` leaves the second one out. A stack of these layers is the paper's model: each keeps
the inputs it has seen as its memory. u and v are the layer's own; the paper shares them over depth.

State. Segments begin with the sequence and at every reset, masked steps do not count, and a stream
may be cut anywhere: so the state holds the memory and the up to L - 1 steps of the segment since.
Hidden states are kept rather than keys and values, as in the paper: W_k and W_v learn from all that
a step sees, also where it came in an earlier call. So a step costs O((M + L) features^2).

`detach_memory` stops the gradient into the steps before the segment, as the paper trains; W_k and
W_v still learn from them. By default it flows, and truncation is the learner's business.

No weight depends on the memory: `with_memory` gives the layer with another one, as the paper
lengthens it for evaluation. Of the official options, `same_length` lets every step attend to the
last M steps, itself among them, whatever its segment; `clamp` takes distances beyond it for it, as
in evaluation with memories longer than were trained. Left out are ext_len, dropatt, and what
belongs to the model around it (adaptive softmax, tied weights).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.nn.base import Layer
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.ops.dense_attention import attend, relative_scores
from seqjax.ops.positions import sinusoids
from seqjax.ops.segment_recurrence import segment_recurrence
from seqjax.ops.segments import SegmentState

INIT = nnx.initializers.normal(0.02)  # as the official code


class FeedForward(nnx.Module):
    def __init__(self, features: int, wide: int, pre_norm: bool, rngs: nnx.Rngs):
        self.W_1 = nnx.Linear(features, wide, kernel_init=INIT, rngs=rngs)
        self.W_2 = nnx.Linear(wide, features, kernel_init=INIT, rngs=rngs)
        self.norm = Norm(features, centre=True, bias=True, eps=1e-5)
        self.pre_norm = pre_norm

    def __call__(self, x):
        hidden = jax.nn.relu(self.W_1(self.norm(x) if self.pre_norm else x))
        x = x + self.W_2(hidden)
        return x if self.pre_norm else self.norm(x)


class Memory(NamedTuple):
    inputs: jax.Array  # [memory, features], the newest at the end, zeros if unseen
    filled: jax.Array  # int32 [], how many were seen


class TransformerXL(Layer):
    block = True
    structure = "window of the past"
    learned = ""  # a cache begins empty

    def __init__(
        self,
        features: int,
        *,
        heads: int = 1,
        head_size: int | None = None,
        length: int = 64,
        memory: int = 64,
        feed_forward: int | None = None,
        pre_norm: bool = False,
        detach_memory: bool = False,
        same_length: bool = False,
        clamp: int | None = None,
        rngs: nnx.Rngs,
    ):
        if length < 1 or memory < 0:
            raise ValueError(f"length must be >= 1 and memory >= 0, got {length} and {memory}")
        if same_length and memory < 1:
            raise ValueError("same_length is that of the memory: it must be >= 1, got 0")
        if clamp is not None and clamp < 0:
            raise ValueError(f"clamp is the longest distance, >= 0; got {clamp}")
        self.features = self.out_features = features
        self.heads, self.size = heads, head_size or per_head("features", features, heads)
        self.length, self.memory = length, memory
        self.pre_norm, self.detach_memory = pre_norm, detach_memory
        self.same_length, self.clamp = same_length, clamp
        inner = heads * self.size
        wide = 4 * features if feed_forward is None else feed_forward

        def linear(n, m):
            return nnx.Linear(n, m, use_bias=False, kernel_init=INIT, rngs=rngs)

        self.W_q, self.W_k, self.W_v, self.W_r = (linear(features, inner) for _ in range(4))
        self.u, self.v = (nnx.Param(INIT(rngs.params(), (heads, self.size))) for _ in range(2))
        self.W_o = linear(inner, features)
        self.norm = Norm(features, centre=True, bias=True, eps=1e-5)
        self.feed = FeedForward(features, wide, pre_norm, rngs) if wide else None

    def with_memory(self, memory: int) -> "TransformerXL":
        """A layer with the same weights, and a memory of so many steps; its state is another."""
        if memory < self.same_length:
            raise ValueError(f"memory must be >= {int(self.same_length)}, got {memory}")
        longer = nnx.merge(*nnx.split(self))
        longer.memory = memory
        return longer

    def initial(self):
        none = jnp.zeros((), jnp.int32)
        memory = Memory(jnp.zeros((self.memory, self.features)), none)
        return SegmentState(memory, jnp.zeros((self.length - 1, self.features)), none)

    def run(self, x, h, flow):
        q = split_heads(self.W_q(self.norm(x) if self.pre_norm else x), self.heads)
        r = positions(self.memory + self.length - 1, self.features, x.dtype, self.clamp)
        r = split_heads(self.W_r(r), self.heads)
        a, state = segment_recurrence(partial(self.attend, r), self.fold, q, x, h, flow=flow)
        x = x + self.W_o(a)
        x = x if self.pre_norm else self.norm(x)
        return x if self.feed is None else self.feed(x), state

    def attend(self, r, m, q, inputs, i, j, seen):
        """a [n, heads size] of queries q [n, heads, size] at places i over `inputs` at places j."""
        M, memory = self.memory, m.inputs
        places = jnp.concatenate([jnp.arange(-M, 0, dtype=j.dtype), j])
        remembered = jnp.broadcast_to((places[:M] >= -m.filled)[None], (len(q), M))
        seen = jnp.concatenate([remembered, seen], axis=1)
        if self.same_length:
            seen &= i[:, None] - places[None] < M
        memory = lax.stop_gradient(memory) if self.detach_memory else memory
        z = jnp.concatenate([memory, inputs]).astype(q.dtype)
        z = self.norm(z) if self.pre_norm else z
        k, v = (split_heads(W(z), self.heads) for W in (self.W_k, self.W_v))
        u, v_bias = self.u[...][None], self.v[...][None]
        scale = self.size**-0.5
        bias = by_place(scale * relative_scores(q + v_bias, r), i, j, M)
        return merge_heads(attend(q + u, k, v, seen, scale=scale, bias=bias))

    def fold(self, m, inputs):
        inputs = jnp.concatenate([m.inputs, inputs])
        filled = jnp.minimum(m.filled + self.length, self.memory)
        return Memory(inputs[self.length :], filled)


def by_place(relative, i, j, memory: int):
    """Scores [heads, n, memory + L + n - 1] by distance (`relative_scores`), of queries at places
    i [n], to those [heads, n, memory + L] of what is remembered and of items at places j [L]."""
    L = len(j)
    # as if the first query stood at the last place L - 1, then by the key it has in truth
    relative = jnp.pad(relative, ((0, 0), (0, 0), (0, L - len(i))))
    first = L - 1 - i[0]
    to_memory = lax.dynamic_slice_in_dim(relative, first, memory, axis=2)
    to_items = lax.dynamic_slice_in_dim(relative, first + memory + j[0], L, axis=2)
    return jnp.concatenate([to_memory, to_items], axis=2)


def positions(furthest: int, features: int, dtype, clamp: int | None = None) -> jax.Array:
    """R_n [furthest + 1, features] for the distances n = furthest ... 0, at most `clamp`."""
    n = jnp.arange(furthest, -1, -1)
    return sinusoids(n if clamp is None else jnp.minimum(n, clamp), features, dtype)
