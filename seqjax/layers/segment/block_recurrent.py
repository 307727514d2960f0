"""Block-recurrent Transformer (Hutchins, Schlag, Wu, Dyer, Neyshabur 2022, arXiv:2203.07852): a
recurrent cell whose step is a block of `length` W steps and whose state is `slots` S vectors.

Both directions are a Transformer layer of self-attention and cross-attention side by side (sec. 3),
here for one block of inputs x [W, features] and the state c [S, features]:

    vertical    y = W_o [attend(q, k, v); attend(p, k_c, v_c)]         q, p, k, v of x
    horizontal  a = [attend(q_c, k_c, v_c); attend(p_c, k, v)]         those of c of LN(c) + id
                c' = gate(c, h),  h of a by the `form`

Self-attention of x slides over the last W steps, itself among them, through the keys and values of
the block before. Each vector of the state has a learned `id`, without which all would be alike.
Keys and values are shared by both directions.

    form    "skip"    h = U_o a, one gate and no MLP: the paper's best
            "single"  h = MLP(a), without U_o
            "dual"    c'' = gate_1(c, U_o a),  c' = gate_2(c'', MLP(LN(c'')))
    gate    "fixed"   g = sigmoid(b_g),  c' = c * g + (W_z h + b_z) * (1 - g)
            "lstm"    f = sigmoid(W_f h + b_f + 1),  i = sigmoid(W_i h + b_i - 1)
                      c' = c * f + tanh(W_z h + b_z) * i

The vertical direction is the mixer of a model, which puts norm, residual and MLP around it. Not
`same_length` sees the whole block before, as a community's code does. Positions are rotary, in
place of the paper's table of T5. b_g starts at 1, c at small numbers that are learned.

For what a block has to hand on that a window does not reach: recurrence once every W steps, at the
price of one layer of attention.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.ops.dense_attention import attend
from seqjax.ops.positions import rotary
from seqjax.ops.segment_recurrence import segment_recurrence
from seqjax.ops.segments import SegmentState


class Block(NamedTuple):
    c: jax.Array  # [slots, features]
    k: jax.Array  # [length, kv_heads, size], of the block before
    v: jax.Array
    filled: jax.Array  # int32 [], 1 if there is one


class Gate(nnx.Module):
    """In place of a residual connection: c and what is new, h, to the next c."""

    def __init__(self, features: int, kind: str, rngs: nnx.Rngs):
        self.W_z = nnx.Linear(features, features, rngs=rngs)
        self.b_g = Precise(jnp.ones(features)) if kind == "fixed" else None
        if kind == "lstm":
            self.W_i, self.W_f = (nnx.Linear(features, features, rngs=rngs) for _ in range(2))

    def __call__(self, c, h):
        z = self.W_z(h)
        if self.b_g is not None:
            g = jax.nn.sigmoid(self.b_g[...])[None].astype(c.dtype)
            return c * g + z * (1 - g)
        i, f = jax.nn.sigmoid(self.W_i(h) - 1), jax.nn.sigmoid(self.W_f(h) + 1)
        return c * f + jnp.tanh(z) * i


class MLP(nnx.Module):
    def __init__(self, n: int, wide: int, m: int, rngs: nnx.Rngs):
        self.W_1, self.W_2 = nnx.Linear(n, wide, rngs=rngs), nnx.Linear(wide, m, rngs=rngs)

    def __call__(self, x):
        return self.W_2(jax.nn.relu(self.W_1(x)))


class BlockRecurrent(Layer):
    structure = "attention from block to block"
    learned = ""  # c_0 is a parameter, and a cache begins empty

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        head_size: int | None = None,
        length: int = 64,
        slots: int = 16,
        gate: str = "fixed",
        form: str = "skip",
        expansion: int = 4,
        same_length: bool = True,
        rotary_fraction: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.kv_heads = heads, kv_heads or heads
        per_head("heads", heads, self.kv_heads)
        self.size = head_size or per_head("features", features, heads)
        self.length, self.slots = length, slots
        self.same_length, self.rotary_fraction = same_length, rotary_fraction
        self.gate = option("gate", gate, ("fixed", "lstm"))
        self.form = option("form", form, ("skip", "single", "dual"))
        inner, keys = heads * self.size, self.kv_heads * self.size

        def linear(n, m):
            return nnx.Linear(n, m, use_bias=False, rngs=rngs)

        self.W_q, self.W_p = linear(features, inner), linear(features, inner)
        self.W_k, self.W_v = linear(features, keys), linear(features, keys)
        self.W_o = linear(2 * inner, features)
        self.U_q, self.U_p = linear(features, inner), linear(features, inner)
        self.U_k, self.U_v = linear(features, keys), linear(features, keys)
        self.norm = Norm(features, centre=True, eps=1e-5)
        drawn = nnx.initializers.normal(1.0)(rngs.params(), (2, slots, features))
        self.c_0, self.id = Precise(0.1 * drawn[0]), nnx.Param(drawn[1])
        self.U_o = None if form == "single" else linear(2 * inner, features)
        self.gate_1 = Gate(features, gate, rngs)
        entering, wide = 2 * inner if form == "single" else features, expansion * features
        self.mlp: Any = None if form == "skip" else MLP(entering, wide, features, rngs)
        self.mlp_norm: Any = Norm(features, centre=True, eps=1e-5) if form == "dual" else None
        self.gate_2: Any = Gate(features, gate, rngs) if form == "dual" else None

    def initial(self):
        none = jnp.zeros((), jnp.int32)
        keys = self.kv_heads, self.size
        k, v = (jnp.zeros((self.length - 1, *keys)) for _ in range(2))
        before = jnp.zeros((self.length, *keys))
        return SegmentState(Block(self.c_0[...], before, before, none), (k, v), none)

    def run(self, x, h, flow):
        q, p = (split_heads(W(x), self.heads) for W in (self.W_q, self.W_p))
        k, v = (split_heads(W(x), self.kv_heads) for W in (self.W_k, self.W_v))
        y, state = segment_recurrence(self.vertical, self.horizontal, (q, p), (k, v), h, flow=flow)
        return self.W_o(y.astype(x.dtype)), state

    def keyed(self, c):
        """LN(c) + id, and keys and values of it."""
        z = self.norm(c) + self.id[...].astype(c.dtype)
        return z, *(split_heads(U(z), self.kv_heads) for U in (self.U_k, self.U_v))

    def vertical(self, m, queries, items, i, j, seen):
        (q, p), W, scale = queries, self.length, self.size**-0.5
        places = jnp.concatenate([jnp.arange(-W, 0, dtype=j.dtype), j])
        past = jnp.broadcast_to(m.filled > 0, (len(q), W))
        seen = jnp.concatenate([past, seen], axis=1)
        if self.same_length:
            seen &= i[:, None] - places[None] < W
        k, v = (jnp.concatenate([z, new]) for z, new in zip((m.k, m.v), items))
        q, k = (rotary(z, n, fraction=self.rotary_fraction) for z, n in ((q, i), (k, places)))
        own = attend(q, k, v, seen, scale=scale)
        read = attend(p, *self.keyed(m.c)[1:], scale=scale)
        return jnp.concatenate([merge_heads(own), merge_heads(read)], axis=1)

    def horizontal(self, m, items):
        z, k_c, v_c = self.keyed(m.c)
        q, p = (split_heads(U(z), self.heads) for U in (self.U_q, self.U_p))
        (k, v), scale = items, self.size**-0.5
        a = [attend(q, k_c, v_c, scale=scale), attend(p, k, v, scale=scale)]
        h = jnp.concatenate([merge_heads(z) for z in a], axis=1)
        h = h if self.U_o is None else self.U_o(h)
        if self.form == "single":
            h = self.mlp(h)
        c = self.gate_1(m.c, h)
        if self.form == "dual":
            c = self.gate_2(c, self.mlp(self.mlp_norm(c)))
        return Block(c, k, v, jnp.ones_like(m.filled))
