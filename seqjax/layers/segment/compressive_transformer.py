"""Compressive Transformer (Rae, Potapenko, Jayakumar, Lillicrap 2019, arXiv:1911.05507): attention
over segments, whose oldest steps are compressed before they are forgotten.

A step at place p of its segment of `length` L attends to itself, to the p steps before it there, to
the last `memory` n_m steps before the segment, and to `compressed` n_cm vectors of those before
them. At its end a segment pushes L steps out of the memory (Alg. 1):

    old = the first L of [m; x],   m' = the other n_m
    cm' = the last n_cm of [cm; f_c(old)],   f_c [L, features] -> [L / c, features]; c is `ratio`

    compression   "mean", "max"     pooling by c, without weights                     sec. 3.2
                  "conv"            a convolution of width and stride c
                  "dilated"         of each c steps the last u^n_t, n = ceil(log_2 c), n >= 1:
                                    u^{l+1}_t = A_l u^l_{t - 2^l} + B_l u^l_t + b_l, u^0 = old,
                                    0 before these c, with a rectifier between convolutions
                  "most_used"       the L / c of the old that the segment which pushes
                                    them out attended to most, in their order
    positions     "sinusoid"        by distance as in `transformer_xl`, a compressed vector
                                    being one place
                  "table"           q_i . p_n, a learned p for each head and place n, counted
                                    from the oldest that is remembered (a community's code)

Scores, W_q, W_k, W_v, W_o and what of it a stream needs are those of `TransformerXL`;
this is the mixer alone, and a model puts norm, residual and MLP around it. Where c does not divide
the number of old steps they are filled up with zeros on the left. The paper has no sizes of the
dilated convolutions: these are ours.

The paper trains f_c by a loss of its own, and lets no gradient of one pass to the other (sec.
3.2): with `detach_memory` none reaches what lies before the segment, and training adds the
`compression_loss` of attention, which is f_c's alone. Without it the task trains f_c.

No weight depends on the memories, but the table: `with_memory` gives the layer with others.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.core.flow import Carry, Flow
from seqjax.layers.segment.transformer_xl import by_place, positions as sinusoids
from seqjax.nn.base import Layer, cast_parameters, option, promotion
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.ops.dense_attention import attend, attention_weights, relative_scores
from seqjax.ops.segment_recurrence import segment_recurrence
from seqjax.ops.segments import SegmentState

COMPRESSIONS = ("conv", "dilated", "mean", "max", "most_used")
INIT = nnx.initializers.normal(0.02)


class Memories(NamedTuple):
    compressed: jax.Array  # [compressed, features], the newest at the end
    inputs: jax.Array  # [memory, features], the newest at the end
    held: jax.Array  # int32 [], how many of the first there are
    filled: jax.Array  # int32 [], how many of the second there are


class Decoder(nnx.Module):
    """What the loss of an auto-encoder takes f_c back by: [L / c, features] to [L, features]."""

    def __init__(self, features: int, ratio: int, *, rngs: nnx.Rngs):
        self.W = nnx.Linear(features, ratio * features, rngs=rngs)

    def __call__(self, z):
        return self.W(z).reshape(-1, z.shape[1])


class Dilated(nnx.Module):
    """Convolutions of width 2, dilations 1, 2, 4 .. until they span c steps: [S, c D] to [S, D]."""

    def __init__(self, features: int, ratio: int, *, rngs: nnx.Rngs):
        depth = max(1, (ratio - 1).bit_length())
        self.layers = nnx.List(nnx.Linear(2 * features, features, rngs=rngs) for _ in range(depth))

    def __call__(self, groups):
        u = groups.reshape(len(groups), -1, self.layers[0].out_features)
        for n, layer in enumerate(self.layers):
            u = jax.nn.relu(u) if n else u
            before = jnp.pad(u, ((0, 0), (2**n, 0), (0, 0)))[:, : u.shape[1]]
            u = layer(jnp.concatenate([before, u], axis=2))
        return u[:, -1]


def newest(size, count):
    """bool [size]: the last `count` of so many."""
    return jnp.arange(-size, 0, dtype=jnp.int32) >= -count


class CompressiveTransformer(Layer):
    structure = "window of the past, and a compressed one"
    learned = ""  # a cache begins empty

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        head_size: int | None = None,
        length: int = 64,
        memory: int = 64,
        compressed: int = 64,
        ratio: int = 4,
        compression: str = "conv",
        positions: str = "sinusoid",
        out_bias: bool = False,
        detach_memory: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.size = heads, head_size or per_head("features", features, heads)
        self.length, self.memory, self.compressed = length, memory, compressed
        self.ratio, self.detach_memory = ratio, detach_memory
        self.compression = option("compression", compression, COMPRESSIONS)
        self.positions = option("positions", positions, ("sinusoid", "table"))
        inner = heads * self.size

        def linear(n, m, bias=False):
            return nnx.Linear(n, m, use_bias=bias, rngs=rngs)

        self.W_q, self.W_k, self.W_v = (linear(features, inner) for _ in range(3))
        self.W_o = linear(inner, features, out_bias)
        if compression == "conv":
            self.f_c = linear(ratio * features, features, True)
        else:
            dilated = compression == "dilated"
            self.f_c = Dilated(features, ratio, rngs=rngs) if dilated else None
        self.own_loss = detach_memory and self.f_c is not None
        head = heads, self.size
        if positions == "table":
            places = length + memory + compressed
            self.p = nnx.Param(INIT(rngs.params(), (places, *head)))
        else:
            self.W_r = linear(features, inner)
            self.u, self.v = (nnx.Param(INIT(rngs.params(), head)) for _ in range(2))

    def with_memory(self, memory: int, compressed: int) -> "CompressiveTransformer":
        """A layer with the same weights, and memories of other sizes; its state is another."""
        if self.positions == "table":
            raise ValueError("positions in a table are of one memory; use positions='sinusoid'")
        longer = nnx.merge(*nnx.split(self))
        longer.memory, longer.compressed = memory, compressed
        return longer

    def initial(self):
        none = jnp.zeros((), jnp.int32)
        z, m, x = (
            jnp.zeros((n, self.features)) for n in (self.compressed, self.memory, self.length - 1)
        )
        return SegmentState(Memories(z, m, none, none), x, none)

    def run(self, x, h, flow):
        a, state = segment_recurrence(self.attend, self.fold, x, x, h, flow=flow)
        return self.W_o(a), state

    def attend(self, m, x, inputs, i, j, seen):
        q, k, v, options = self.compared(m, x, inputs, i, j, seen)
        return merge_heads(attend(q, k, v, **options))

    def compared(self, m, x, inputs, i, j, seen):
        """q [n, heads, size], k and v of the memories and the inputs, and options of `attend`."""
        m = lax.stop_gradient(m) if self.detach_memory else m
        C, M, scale = self.compressed, self.memory, self.size**-0.5
        there = jnp.concatenate([newest(C, m.held), newest(M, m.filled)])
        past = jnp.broadcast_to(there[None], (len(x), C + M))
        z = jnp.concatenate([m.compressed, m.inputs, inputs]).astype(x.dtype)
        q, k, v = (
            split_heads(W(y), self.heads) for W, y in ((self.W_q, x), (self.W_k, z), (self.W_v, z))
        )
        if self.positions == "table":
            relative = relative_scores(q, jnp.roll(self.p[...], C + M - m.held - m.filled, axis=0))
        else:
            r = sinusoids(C + M + self.length - 1, self.features, x.dtype)
            r = split_heads(self.W_r(r), self.heads)
            relative = relative_scores(q + self.v[...][None], r)
            q = q + self.u[...][None]
        seen = jnp.concatenate([past, seen], axis=1)
        bias = by_place(scale * relative, i, j, C + M)
        options: dict[str, Any] = dict(seen=seen, scale=scale, bias=bias)
        return q, k, v, options

    def fold(self, m, inputs):
        if self.detach_memory:
            m = lax.stop_gradient(m)
        old, gone = self.leaving(m, inputs)
        old = lax.stop_gradient(old) if self.detach_memory else old
        new, count = self.compress(old, gone, m, inputs)
        kept = jnp.concatenate([m.inputs, inputs])[self.length :]
        compressed = jnp.concatenate([m.compressed, new])[len(new) :]
        held = jnp.minimum(m.held + count, self.compressed)
        filled = jnp.minimum(m.filled + self.length, self.memory)
        return Memories(compressed, kept, held, filled)

    def leaving(self, m, inputs):
        """The old steps [L, features], and how many of them, the last ones, there are."""
        old = jnp.concatenate([m.inputs, inputs])[: self.length]
        return old, jnp.maximum(m.filled + self.length - self.memory, 0)

    def compress(self, old, gone, m, inputs):
        """f_c(old) [L / c, features], and how many of them, the last ones, there are."""
        L, c = self.length, self.ratio
        size = -(-L // c)
        if self.compression == "most_used":
            j = jnp.arange(L, dtype=jnp.int32)
            q, k, _, options = self.compared(m, inputs, inputs, j, j, j[None] <= j[:, None])
            used = attention_weights(q, k, **options).mean((0, 1))
            used = used[self.compressed : self.compressed + L]
            chosen = lax.top_k(jnp.where(j >= L - gone, used, -1.0), size)[1]
            return old[jnp.sort(chosen)], jnp.minimum(gone, size)
        count = (gone + c - 1) // c
        groups = jnp.pad(old, ((size * c - L, 0), (0, 0))).reshape(size, c, self.features)
        if self.f_c is not None:
            return self.f_c(groups.reshape(size, c * self.features)), count
        return groups.mean(1) if self.compression == "mean" else groups.max(1), count

    def compression_loss(self, x, h=None, resets=None, mask=None, *, decoder=None):
        """[B, T]: at each step that ends a segment the mean square of what compression loses there,
        and 0 at all others. It has a gradient for f_c, and for the decoder, and for nothing else.

        Without a `Decoder` it is of attention (Alg. 2): of what the segment reads off f_c(old) in
        place of old, by content alone; with one, of the old steps themselves (auto-encoding).
        """
        working = cast_parameters(self, x.dtype)
        graph, state = nnx.split(working)
        layer = nnx.merge(graph, lax.stop_gradient(state))
        layer.f_c = working.f_c
        x, h = lax.stop_gradient((x, layer.batch_state(len(x), x.dtype) if h is None else h))

        def one(x, h, resets, mask):
            start, flow = layer.initial(), Flow(resets, mask)
            lost = partial(layer.lost, decoder)
            return segment_recurrence(lost, layer.fold, x, x, Carry(h, start), flow=flow)[0]

        with promotion(x.dtype):
            loss = jax.vmap(one)(x, h, resets, mask)
        return loss if mask is None else jnp.where(mask, loss, 0)

    def losses(self, x, h, resets, mask):
        # a segment ends at one step of `length`: a mean over segments
        return {"compression": self.length * self.compression_loss(x, h, resets, mask)}

    def lost(self, decoder, m, x, inputs, i, j, seen):
        del i, j
        old, gone = self.leaving(m, inputs)
        new, count = self.compress(old, gone, m, inputs)
        if decoder is None:
            q = split_heads(self.W_q(inputs), self.heads)

            def read(z, count):
                k, v = (split_heads(W(z), self.heads) for W in (self.W_k, self.W_v))
                there = jnp.broadcast_to(newest(len(z), count)[None], (len(q), len(z)))
                return attend(q, k, v, there, scale=self.size**-0.5)

            loss = jnp.mean((read(old, gone) - read(new, count)) ** 2)
        else:
            square = jnp.mean((decoder(new)[-len(old) :] - old) ** 2, axis=1)
            square = jnp.where(newest(len(old), gone), square, 0)
            loss = jnp.sum(square) / jnp.maximum(gone, 1).astype(square.dtype)
        return jnp.where(jnp.all(seen, axis=1) & (gone > 0), loss, 0)
