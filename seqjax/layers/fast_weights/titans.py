"""Titans (Behrouz et al. 2024, arXiv:2501.00663): attention, and a memory that learns at test time.

The memory M is a model that learns to answer keys with values while it reads (sec. 3.1):

    S_t = eta_t S_{t-1} - theta_t grad |M_b(k_t) - v_t|^2      surprise, with momentum   eq. 12, 14
    M_t = (1 - alpha_t) M_{t-1} + S_t                          with forgetting           eq. 13
    M*(q_t) = M_t(q_t)                                         what it recalls           eq. 15

where M_b are the weights at the start of the chunk of `size` steps (sec. 3.2). q_t and k_t are
unit(SiLU(conv(W x)_t)), v_t is SiLU(conv(W_v x)_t); theta_t = sigmoid(.) / size, alpha_t, eta_t =
sigmoid(.) are linear in x_t, one per head. Attention sees `persistent` learned tokens p besides
(eq. 19), and the paper places the memory in three ways, `placement`:

    "gate"     y = Attn(p, x in a window),  o = norm(y) * SiLU(norm(M*(x)))         MAG, eq. 26-28
    "layer"    y = M*(x),  o = Attn(p, y in a window)                               MAL, eq. 29-31
    "context"  h_t = M_b(q_t), y_t = Attn(p, h and x of this chunk up to t),
               M learns from y,  o_t = norm(y_t) * SiLU(norm(M*(y_t)))              MAC, eq. 21-25
    "memory"   o = M*(x)                                                            LMM

and W_o o is the output. All learn in the dual form of `seqjax.ops.inner_learning`.
"context" must take its chunks one after the other, since what M learns from was recalled from the
weights a chunk begins with; given these, all its steps are computed at once.

Departures. In "context" step t sees the h_s of the steps s <= t only: the paper's figure shows all
of the chunk, which looks ahead. p is not written into the memory. The paper leaves open the gate
of two branches (SiLU after a norm here) and the gates' parameters: theta is divided by the size of
the chunk, over which its gradients add up at the same weights; alpha starts near 0.02. `hidden` are
the widths of the memory's hidden layers, one of 4 D by default (L_M = 2); () is the linear memory.
Without `momentum` eta is 0, without `decay` alpha is: two of the paper's ablations. Without both,
the linear memory in chunks of one step is the delta rule with beta = 2 theta. Of titans-pytorch,
which is not the authors', not here what goes beyond the paper: momentum of higher order, several
keys per step, pooled rates, rates per weight, norms of surprises and transitions.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import Carry, Flow
from seqjax.layers.fast_weights.ttt import InnerWeights
from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.convolution import ShortConv
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm, unit
from seqjax.ops.chunks import stepwise
from seqjax.ops.dense_attention import attend
from seqjax.ops.inner_learning import in_one_window, inner_learning
from seqjax.ops.inner_model import Inner, Learner, Steps, where
from seqjax.ops.look_back import Cache, empty, look_back
from seqjax.ops.op import matmul_precision
from seqjax.ops.positions import places, rotary
from seqjax.ops.segments import SegmentState, scan_segments

PLACEMENTS = ("gate", "layer", "context", "memory")


class MemoryState(NamedTuple):
    window: jax.Array  # [conv - 1, channels of q, k and v]
    learner: Learner


class Memory(nnx.Module):
    """The neural memory: x [T, features] to M*(x) [T, features]."""

    structure = "with momentum"

    def __init__(self, features, *, heads, size, hidden, conv, momentum, decay, rngs):
        self.heads, self.D = heads, per_head("features", features, heads)
        self.inner = Inner(size, loss="regression", output="plain", bias=False)
        self.W_qkv = nnx.Linear(features, 3 * features, use_bias=False, rngs=rngs)
        self.conv = ShortConv(3 * features, conv, bias=False, rngs=rngs)
        self.momentum, self.decay = momentum, decay
        starts = [0.0] + momentum * [0.0] + decay * [-4.0]  # theta, eta, alpha
        self.gates = nnx.Linear(features, len(starts) * heads, use_bias=False, rngs=rngs)
        self.gate_bias = Precise(jnp.repeat(jnp.asarray(starts), heads))
        widths = (self.D, *hidden, self.D)
        self.slow = InnerWeights(heads, widths, bias=False, norm=False, rngs=rngs)

    def initial(self):
        return MemoryState(
            self.conv.initial(), self.slow.start(momentum=self.momentum, decay=self.decay)
        )

    def project(self, x, window, flow):
        """q, k, v [T, heads, D] and the next window."""
        qkv, window = self.conv(self.W_qkv(x), window, flow)
        q, k, v = jnp.split(split_heads(jax.nn.silu(qkv), 3 * self.heads), 3, axis=1)
        return unit(q), unit(k), v, window

    def run(self, x, h, flow, learn=inner_learning):
        q, k, v, window = self.project(x, h.window, flow)
        logits = self.gates(x) + self.gate_bias[...][None]
        theta, *others = jnp.split(logits, 1 + self.momentum + self.decay, axis=1)
        y, learner = learn(
            q,
            k,
            v,
            2 / self.inner.size * jax.nn.sigmoid(theta),
            h.learner,
            log_eta=jax.nn.log_sigmoid(others[0]) if self.momentum else None,
            log_keep=jax.nn.log_sigmoid(-others[-1]) if self.decay else None,
            inner=self.inner,
            flow=flow,
        )
        return merge_heads(y).astype(x.dtype), MemoryState(window, learner)

    def recall(self, q, learner):
        """M_b(q) [T, features], from the weights the chunk began with."""

        def head(q, W):
            return self.inner.run(q, [lambda z, w=w: z @ w for w in W])[0]

        W = learner.W
        return merge_heads(jax.vmap(head, in_axes=(1, 0), out_axes=1)(q.astype(W[0].dtype), W))


def in_one_part(q, k, v, theta, h, *, inner, flow, **rates):
    """`inner_learning` of the steps of one window of its chunks."""
    xs = Steps(q, k, v, theta, **rates)
    xs = jax.tree.map(lambda z: z.astype(accumulation_dtype(q.dtype)), xs)._replace(mask=flow.mask)
    with matmul_precision(q.dtype):
        return in_one_window(xs, h.now, inner=inner, norm=None, resets=flow.resets)


class PersistentAttention(nnx.Module):
    """Softmax attention that sees `persistent` learned tokens besides; rotary positions."""

    def __init__(self, features, *, heads, persistent, rngs):
        self.heads, self.K = heads, per_head("features", features, heads)
        linear = partial(nnx.Linear, features, features, use_bias=False, rngs=rngs)
        self.W_q, self.W_k, self.W_v, self.W_o = (linear() for _ in range(4))
        draw = nnx.initializers.normal(0.02)
        self.p = nnx.Param(draw(rngs.params(), (persistent, features)))

    def project(self, x):
        return tuple(split_heads(W(x), self.heads) for W in (self.W_q, self.W_k, self.W_v))

    def attend(self, q, kv, i, j, seen):
        """[n, features] of q [n, H, K] at places i over k, v [m, H, K] at j; seen bool [n, m]."""
        _, k_p, v_p = (z.astype(q.dtype) for z in self.project(self.p[...]))
        k, v = (z.astype(q.dtype) for z in kv)
        # p has no position: it meets the query as it is, in channels of its own
        keys = ((jnp.zeros_like(k_p), k_p), (rotary(k, j), jnp.zeros_like(k)))
        keys = jnp.concatenate([jnp.concatenate(pair, axis=2) for pair in keys])
        seen = jnp.concatenate([jnp.ones((len(q), len(k_p)), bool), seen], axis=1)
        queries = jnp.concatenate([rotary(q, i), q], axis=2)
        y = attend(queries, keys, jnp.concatenate([v_p, v]), seen, scale=self.K**-0.5)
        return merge_heads(y)


class Context(NamedTuple):
    """What "context" keeps of the current chunk, by place: keys and values of h and of x.

    Places that no step of the chunk took yet are zero.
    """

    window: jax.Array  # of the queries to the memory
    items: tuple[jax.Array, ...]  # k_h, k_x, v_h, v_x, each [size, heads, K]


class TitansState(NamedTuple):
    memory: MemoryState
    attention: Cache | Context | None


class Titans(Layer):
    ops = ("inner_learning",)
    learned = ""  # the slow weights of the memory are, already

    def __init__(
        self,
        features: int,
        *,
        placement: str = "gate",
        heads: int = 4,
        size: int = 64,
        hidden: tuple[int, ...] | None = None,
        conv: int = 4,
        window: int = 64,
        persistent: int = 4,
        momentum: bool = True,
        decay: bool = True,
        rngs: nnx.Rngs,
    ):
        if min(size, window, persistent) < 1:
            raise ValueError(
                f"size, window and persistent must be at least 1, got {size, window, persistent}"
            )
        self.features = self.out_features = features
        self.placement = option("placement of Titans", placement, PLACEMENTS)
        self.heads, self.window, self.size = heads, window, size
        D = per_head("features", features, heads)
        hidden = (4 * D,) if hidden is None else tuple(hidden)
        widths = (D, *hidden, D)
        self.weights = heads * sum(n * m for n, m in zip(widths, widths[1:]))
        self.momentum, self.decay = momentum, decay
        self.memory = Memory(
            features,
            heads=heads,
            size=size,
            hidden=hidden,
            conv=conv,
            momentum=momentum,
            decay=decay,
            rngs=rngs,
        )
        self.attention: Any = (
            None
            if placement == "memory"
            else PersistentAttention(features, heads=heads, persistent=persistent, rngs=rngs)
        )
        gated = placement in ("gate", "context")
        self.norm_y: Any = Norm(features) if gated else None
        self.norm_M: Any = Norm(features) if gated else None
        self.W_o = nnx.Linear(features, features, use_bias=False, rngs=rngs)
        # floats of the state beside the memory's
        self.attended = 0 if placement == "memory" else 2 * (window - 1) * features
        if placement == "context":
            self.attended = (3 * (conv - 1) + 4 * size) * features

    def initial(self):
        memory, K = self.memory.initial(), self.features // self.heads
        if self.placement == "memory":
            return TitansState(memory, None)
        if self.placement == "context":
            items = jnp.zeros((self.size, self.heads, K))
            return TitansState(memory, Context(self.memory.conv.initial(), (items,) * 4))
        keys = jnp.zeros((self.window - 1, self.heads, K))
        return TitansState(memory, empty((keys, keys)))

    def run(self, x, h, flow):
        if self.placement == "context":
            return self.in_context(x, h, flow)
        recalled, memory = self.memory.run(x, h.memory, flow)
        if self.placement == "memory":
            return self.W_o(recalled), TitansState(memory, None)
        if self.placement == "layer":
            y, cache = self.look(recalled, h.attention, flow)
            return self.W_o(y), TitansState(memory, cache)
        y, cache = self.look(x, h.attention, flow)
        return self.W_o(self.gated(y, recalled)), TitansState(memory, cache)

    def gated(self, y, recalled):
        return self.norm_y(y) * jax.nn.silu(self.norm_M(recalled))

    def look(self, x, cache, flow):
        """Attention over the last `window` steps."""
        q, k, v = self.attention.project(x)
        q = q.astype(cache.now.items[0].dtype)
        y, cache = look_back(self.attention.attend, q, (k, v), cache, flow=flow)
        return self.attention.W_o(y.astype(x.dtype)), cache

    def in_context(self, x, h, flow):
        ask, _, _, window = self.memory.project(x, h.attention.window, flow)
        xs = ask, *self.attention.project(x)
        state, start = (
            SegmentState((a.memory, a.attention.items), (), a.memory.learner.count)
            for a in (h.now, h.start)
        )

        def part(state, xs, _, window):
            return self.part(xs, state, window.flow, in_one_part)

        def step(state, now):
            (x, keep) = now
            y, new = self.part(
                jax.tree.map(lambda z: z[None], x), state, Flow(evaluator="naive"), inner_learning
            )
            new = new if keep is None else where(keep, new, state)
            return new, jax.tree.map(lambda z: z[0], y)

        if flow.evaluator in ("naive", "sequential"):
            y, (memory, items) = stepwise(
                step, state.memory, (xs, flow.mask), flow.begins, start.memory
            )
        else:
            y, state = scan_segments(part, xs, (), Carry(state, start), length=self.size, flow=flow)
            memory, items = state.memory
        return self.W_o(self.gated(*y)), TitansState(memory, Context(window, items))

    def part(self, xs, state, flow, learn):
        """y and M*(y) [C, features] of a window, each, and the state after it: memory and items."""
        (ask, q, k_x, v_x), (memory, old) = xs, state
        steps, learner = len(q), memory.learner
        recalled = self.memory.recall(ask, learner)
        _, k_h, v_h = self.attention.project(recalled.astype(q.dtype))
        new = tuple(z.astype(old[0].dtype) for z in (k_h, k_x, v_h, v_x))

        # items by place of the chunk that entered, then those of the window; twice: of h and of x
        slot = jnp.arange(self.size, dtype=jnp.int32)
        place, count = places(
            learner.count, steps, size=self.size, resets=flow.resets, mask=flow.mask
        )
        before, mine = slot < learner.count, flow.joined(steps)
        seen = jnp.concatenate([jnp.broadcast_to(before[None], (steps, self.size)), mine], axis=1)
        j = jnp.concatenate([slot, place])
        k_h, k_x, v_h, v_x = map(jnp.concatenate, zip(old, new))
        kv = jnp.concatenate([k_h, k_x]), jnp.concatenate([v_h, v_x])
        y = self.attention.attend(
            q.astype(k_x.dtype), kv, place, jnp.tile(j, 2), jnp.tile(seen, (1, 2))
        )
        y = self.attention.W_o(y.astype(q.dtype))
        recalled, memory = self.memory.run(y, Carry(memory, memory), flow, learn)

        to = jnp.where(mine[-1], place, self.size)
        there = (slot < count)[:, None, None]
        items = (jnp.where(there, a.at[to].set(b, mode="drop"), 0) for a, b in zip(old, new))
        return (y, recalled), (memory, tuple(items))
