"""Recurrent attention network (Li et al., "Recurrent attention networks for long-text modeling",
ACL Findings 2023, arXiv:2306.06843).

Windows of `length` steps x, each with the global perception cell g of the windows before it:

    z = N([g; x])
    o = N(silu(MHA(z)) + GLU(z)),   [c; y] = o      self-attention, silu on q, k and v, too; rotary
    g <- N(c~ + GLU(c~ of the window before))       c~ = c standardised; g = c~ of the first window
    y <- N(y~)

so that all that a window knows of those before it is one vector. `review`, the paper's memory
review, ends with another attention, over the cells c~ of all windows and by one head:

    y <- N(silu(softmax(q_y . k_c / sqrt(features)) v_c W_o) + GLU(q_y))

N is LayerNorm, GLU(z) = W_2 z * sigmoid(W_1 z), both with biases; what is standardised has the mean
and the deviation of its channels taken out. Before the first window g is a parameter, which the
release makes as a layer of zeros.

By default a step sees its window up to itself, and g: then steps may come one by one; the cell is
made of all its window, for the next one reads it. (Under the release's causal mask the cell sees
only itself, and carries nothing.) Not `causal` is the paper's encoder, where a window sees all of
itself, a call ends its last window, and a stream is cut between windows; `review` sees the windows
to come, and is for it alone. Not here: the merging of a short last window with the one before it,
and dropout.
"""

from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import NORMS, Norm
from seqjax.nn.segmented import Segmented
from seqjax.nn.states import without_nans_of_pieces
from seqjax.ops.dense_attention import attend
from seqjax.ops.positions import places, rotary
from seqjax.ops.quarantine import mark

LayerNorm = partial(Norm, **NORMS["layer"], eps=1e-5)


class Gated(nnx.Module):
    """W_2 z * sigmoid(W_1 z)."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.W_1, self.W_2 = (nnx.Linear(features, features, rngs=rngs) for _ in range(2))

    def __call__(self, z):
        return self.W_2(z) * jax.nn.sigmoid(self.W_1(z))


class GatedAttention(nnx.Module):
    """N(silu(MHA(x, z)) + GLU(.)): silu after every map; turned where there are positions."""

    def __init__(self, features: int, heads: int, rngs: nnx.Rngs):
        self.heads, self.K = heads, per_head("features", features, heads)
        self.W_q, self.W_k, self.W_v, self.W_o = (
            nnx.Linear(features, features, rngs=rngs) for _ in range(4)
        )
        self.glu, self.norm = Gated(features, rngs), LayerNorm(features)

    def __call__(self, x, z, seen, positions=None):
        flat = jax.nn.silu(self.W_q(x))
        k, v = (split_heads(jax.nn.silu(W(z)), self.heads) for W in (self.W_k, self.W_v))
        q = split_heads(flat, self.heads)
        if positions is not None:
            q, k = rotary(q, positions), rotary(k, positions)
        y = merge_heads(attend(q, k, v, seen, scale=self.K**-0.5))
        kept = x if positions is not None else flat  # the review keeps its queries, as released
        return self.norm(jax.nn.silu(self.W_o(y)) + self.glu(kept))


class Cell(NamedTuple):
    g: jax.Array  # [features], what the next window reads
    c: jax.Array  # [features], c~ of the last one
    windows: jax.Array  # int32 [], so far


class RAN(Segmented):
    block = True
    structure = "attention, from window to window"
    learned = ""  # the first g is a parameter

    def __init__(
        self,
        features: int,
        *,
        length: Annotated[int, Range(1)] = 128,
        heads: int = 4,
        causal: bool = True,
        review: bool = False,
        rngs: nnx.Rngs,
    ):
        if causal and review:
            raise ValueError("review sees the windows to come: it needs causal=False")
        self.features = self.out_features = features
        self.length, self.causal = length, causal
        self.g = nnx.Param(jnp.zeros(features))
        self.plain = Norm(weight=False, centre=True, eps=1e-5)
        self.norm, self.attention = LayerNorm(features), GatedAttention(features, heads, rngs)
        self.cell_glu, self.cell_norm = Gated(features, rngs), LayerNorm(features)
        self.out_norm: Any = None if review else LayerNorm(features)
        self.review = GatedAttention(features, 1, rngs) if review else None

    def memory(self):
        return Cell(self.g[...], jnp.zeros(self.features), jnp.zeros((), jnp.int32))

    def segment(self, m, x, flow):
        now, C = m.now, len(x)
        window, causal = flow.joined(C, causal=False), flow.joined(C, causal=self.causal)
        last = C - 1 if flow.mask is None else jnp.sum(flow.mask) - 1
        if self.review is None:  # one cell, which sees the window of the last step
            itself, read, window = (
                jnp.ones((1, 1), bool),
                jnp.ones((C, 1), bool),
                window[last][None],
            )
        else:  # one for each step, which sees the window of that step
            itself = read = jnp.eye(C, dtype=bool)
        n = len(itself)
        cells = jnp.broadcast_to(now.g[None].astype(x.dtype), (n, self.features))
        z = self.norm(jnp.concatenate([cells, x]))
        seen = jnp.concatenate([jnp.hstack([itself, window]), jnp.hstack([read, causal])])
        place, _ = places(jnp.zeros((), jnp.int32), C, resets=flow.resets, mask=flow.mask)
        positions = jnp.concatenate([jnp.zeros(n, jnp.int32), place + 1])
        o = self.plain(self.attention(z, z, seen, positions))
        c, y = o[:n], o[n:]
        if self.review is not None:
            y = jnp.concatenate([y, c], axis=1)  # `run` reviews them
        else:
            y = self.out_norm(y)
        c = c[last if n > 1 else 0].astype(now.g.dtype)
        g = self.cell_norm(c + self.cell_glu(now.c[None])[0])
        return y, Cell(jnp.where(now.windows == 0, c, g), c, now.windows + 1)

    def run(self, x, h, flow):
        y, state = super().run(x, h, flow)
        if self.review is None:
            return y, state
        y, lost, _ = without_nans_of_pieces(y, flow)
        y, c = jnp.split(y, 2, axis=1)
        place, _ = places(
            jnp.zeros((), jnp.int32), len(x), size=self.length, resets=flow.resets, mask=flow.mask
        )
        seen = flow.joined(len(x), causal=False) & (place == 0)[None]  # the first of each window
        return mark(lost, self.review(y, c, seen)), state
