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

State. The segment grid starts with the sequence and at every reset, masked steps do not count, and
a stream may be cut anywhere: so the state holds the last M + L - 1 inputs, which is all that any
step of the current segment may look at, and how many were seen. Hidden states are kept rather than
keys and values, as in the paper, so a step costs O((M + L) features^2).

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
import numpy as np
from flax import nnx
from jax import lax

from seqjax.core.common import accumulation_dtype
from seqjax.nn.base import Layer
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.nn.segmented import by_length
from seqjax.ops.positions import angles
from seqjax.ops.softmax_attention import attend, relative_scores

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


class Context(NamedTuple):
    inputs: jax.Array  # [memory + length - 1, features], the newest at the end, zeros if unseen
    seen: jax.Array  # int32 [], steps since the start; once the context is full, modulo length


class TransformerXL(Layer):
    block = True
    structure = "window of the past"

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
        if getattr(self, "h0", None) is not None:
            longer.learn_initial()
        return longer

    def initial(self):
        width = self.memory + self.length - 1
        return Context(jnp.zeros((width, self.features)), jnp.zeros((), jnp.int32))

    def run(self, x, h, flow):
        return by_length(self.segment, self.length, x, h, flow)

    def segment(self, h, x, flow):
        h, mask = h.now, flow.mask
        width, steps = len(h.inputs), len(x)
        first = jnp.zeros(steps, bool) if flow.begins is None else flow.begins
        count, order = steps, None
        if mask is not None:  # steps left out go behind the others: a future that nobody sees
            count, order = jnp.sum(mask, dtype=jnp.int32), jnp.argsort(~mask, stable=True)
            x, first = x[order], first[order]

        # Steps are numbered on over resets; `start` is the number of the last reset's step.
        number = h.seen + jnp.arange(steps, dtype=jnp.int32)
        start = lax.cummax(jnp.where(first, number, 0))
        segment = number - (number - start) % self.length
        oldest = (number + 1 if self.same_length else segment) - self.memory
        oldest = jnp.maximum(start, oldest)
        key = h.seen + jnp.arange(-width, steps, dtype=jnp.int32)[None]
        sees = (key >= oldest[:, None]) & (key <= number[:, None])

        # What is not finite reaches those that see it and nobody else; a weight of zero in a
        # matrix product would not keep it out.
        inputs = jnp.concatenate([h.inputs.astype(x.dtype), x])
        finite = jnp.all(jnp.isfinite(inputs), axis=1)
        clean = jnp.where(finite[:, None], inputs, 0)
        y = self._sublayers(clean, width, sees, key < segment[:, None])
        y = jnp.where(jnp.any(sees & ~finite[None], axis=1)[:, None], jnp.nan, y)
        y = y if order is None else y[jnp.argsort(order)]

        seen = h.seen + count - jnp.max(start, initial=0)
        age = width - jnp.arange(width, dtype=jnp.int32)
        inputs = lax.dynamic_slice_in_dim(inputs, count, width)
        inputs = jnp.where((age <= seen)[:, None], inputs, 0)
        full = self.memory + self.length  # from here on only the place in the segment matters
        seen = seen - jnp.maximum(0, (seen - full) // self.length) * self.length
        return y, Context(inputs, seen)

    def _sublayers(self, inputs, width, sees, recalled):
        """y [C, features] of the steps behind the first `width` inputs; sees, recalled [C, keys]:
        which keys a step sees, and which of them are memory."""
        x = inputs[width:]
        attended = self._attend(inputs, width, sees, recalled)
        x = x + attended if self.pre_norm else self.norm(x + attended)
        return x if self.feed is None else self.feed(x)

    def _attend(self, inputs, width, sees, recalled):
        heads = partial(split_heads, heads=self.heads)

        def keys_and_values(inputs):
            inputs = self.norm(inputs) if self.pre_norm else inputs
            return inputs, heads(self.W_k(inputs)), heads(self.W_v(inputs))

        normed, k, v = keys_and_values(inputs)
        q = heads(self.W_q(normed[width:]))
        r = heads(self.W_r(positions(width, self.features, inputs.dtype, self.clamp)))
        u, v_bias = self.u[...][None], self.v[...][None]
        scale = self.size**-0.5
        relative = scale * relative_scores(q + v_bias, r)
        if self.detach_memory:  # as keys of their own
            _, *memory = keys_and_values(lax.stop_gradient(inputs))
            k, v = (jnp.concatenate(pair) for pair in zip((k, v), memory))
            sees = jnp.concatenate([sees & ~recalled, sees & recalled], axis=1)
            relative = jnp.concatenate([relative, relative], axis=2)
        return self.W_o(merge_heads(attend(q + u, k, v, sees, scale=scale, bias=relative)))


def positions(furthest: int, features: int, dtype, clamp: int | None = None) -> jax.Array:
    """R_n [furthest + 1, features] for the distances n = furthest ... 0, at most `clamp`."""
    n = jnp.arange(furthest, -1, -1)
    n = n if clamp is None else jnp.minimum(n, clamp)
    w = 10000.0 ** (-np.arange(0, features, 2) / features)
    angle = angles(n, w, accumulation_dtype(dtype))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)[:, :features].astype(dtype)
