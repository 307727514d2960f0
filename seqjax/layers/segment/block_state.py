"""Block-state Transformer (Fathi et al. 2023, arXiv:2306.09539): attention that reads a state
space.

    c = SSM(x)                            S4D over the whole sequence: the context
    y_t = W_o [self(x)_t; cross(x, c)_t]

self: heads of softmax attention over the last `length` steps, rotary. cross: as many heads whose
keys and values are of the context, in blocks of `length` steps; `form` is where they come from:

    "single"   c has `features` channels; step t reads those of its block up to itself     SH
    "multi"    an SSM for each head, which reads its own c, in the same way                MH
    "filter"   `filters` SSMs; all steps of a block read what they held at the end of the  MF
               block before, one vector each, with a learned ID added; of the first block: zeros

so that a step of the third form sees a few vectors that sum up all that lies before its block, and
nothing waits for another block: no recurrence but the SSM's, which is a scan. Each SSM is a filter
of its own for each channel (`seqjax.layers.ssm.s4d`, unmixed); with the identity in its place the
first form is attention inside blocks.

Here the two halves of W_o are two matrices. The norm, the residual and the feed-forward part that
the paper's block has are the model's; positions are rotary for T5's buckets, and cross attention
has none but the IDs. Which heads of form "multi" share filters the paper leaves open: here none do.

The state is the SSM's, the cache of self, and of the unfinished block the contexts; in form
"filter" also those at the end of the block before. Blocks begin with the sequence and at every
reset.
"""

from typing import Annotated

import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.attention.attention import Attention
from seqjax.layers.ssm.s4d import S4D
from seqjax.nn.base import Layer, option
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.ops.dense_attention import attend
from seqjax.ops.segment_recurrence import segment_recurrence
from seqjax.ops.segments import SegmentState

FORMS = ("single", "multi", "filter")


class BlockState(Layer):
    structure = "diagonal, and a window of the past"

    def __init__(
        self,
        features: int,
        *,
        form: str = "filter",
        length: Annotated[int, Range(1)] = 64,
        heads: int = 4,
        filters: Annotated[int, Range(1)] = 8,
        state: int = 16,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.form, self.length, self.heads = option("form", form, FORMS), length, heads
        self.K = per_head("features", features, heads)
        self.filters = {"single": 1, "multi": heads, "filter": filters}[form]
        self.ssm = S4D(self.filters * features, state=state, mix=False, rngs=rngs)
        self.attention = Attention(features, heads=heads, window=length, rngs=rngs)
        self.W_q, self.W_k, self.W_v, self.W_o = (
            nnx.Linear(features, features, use_bias=False, rngs=rngs) for _ in range(4)
        )
        if form == "filter":
            ids = nnx.initializers.normal(0.02)(rngs.params(), (filters, features))
            self.ids = nnx.Param(ids)

    def parts(self):
        context = jnp.zeros((self.filters, self.features))
        steps = jnp.zeros((self.length - 1, self.filters, self.features))
        before = context if self.form == "filter" else ()
        blocks = SegmentState(before, steps, jnp.zeros((), jnp.int32))
        return self.ssm, self.attention, blocks

    def run(self, x, h, flow):
        ssm, cache, blocks = h
        c, ssm = self.ssm.run(jnp.tile(x, (1, self.filters)), ssm, flow.of(self.ssm.evaluators))
        c = c.reshape(len(x), self.filters, self.features)
        y, cache = self.attention.run(x, cache, flow.of(self.attention.evaluators))
        q = split_heads(self.W_q(x), self.heads)
        if self.form == "filter":
            read, fold = self.read_before, lambda m, c: c[-1]
        else:
            read, fold = self.read_block, lambda m, c: m
        z, blocks = segment_recurrence(read, fold, q, c, blocks, flow=flow.of())
        return y + self.W_o(z), (ssm, cache, blocks)

    def read_before(self, m, q, c, i, j, seen):
        """[n, features] of queries q [n, heads, K] from the contexts m of the block before."""
        m = m.astype(q.dtype) + self.ids[...]
        k, v = (split_heads(W(m), self.heads) for W in (self.W_k, self.W_v))
        return merge_heads(attend(q, k, v, scale=self.K**-0.5))

    def read_block(self, m, q, c, i, j, seen):
        """The same from c [length, filters, features], those of the block that are seen."""
        c = c.astype(q.dtype)
        if self.form == "multi":  # head h of W_k and W_v reads the h-th context
            k, v = (
                jnp.einsum("jhd,dhk->jhk", c, split_heads(W.kernel[...], self.heads))
                for W in (self.W_k, self.W_v)
            )
        else:
            k, v = (split_heads(W(c[:, 0]), self.heads) for W in (self.W_k, self.W_v))
        return merge_heads(attend(q, k, v, seen, scale=self.K**-0.5))
