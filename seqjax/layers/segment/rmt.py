"""Recurrent memory Transformer (Bulatov, Kuratov, Burtsev 2022, arXiv:2207.06881).

The sequence is cut into segments of `length` steps. Memory tokens m [memory, features] stand before
a segment, to be read, and behind it, to be written:

    H~_s = [m_s; x_s; m_s]                                                    sec. 3.2
    H_s = Transformer(H~_s),   H_s = [H_read; y_s; H_write]
    m_{s+1} = H_write                                                         m_0 is learned

with `depth` causal blocks (`seqjax.nn.transformer`: pre-norm, rotary positions, a gated
feed-forward part): a step sees the memory and the steps of its segment up to itself, what is
written sees all. The tokens that are read see no steps, and are of no further use. As in the paper
the memory is what the last block returns; the norm there keeps it in range.

The first segment and the next are of whole length and the last may be short; `aligned` begins a
sequence whose first segment is short instead, so that the last is whole (the release's alignment
"right"). The gradient flows through all segments, as in the release whatever span it is given;
truncation is the learner's business (`--learner bptt`, `--window`).

A step of a stream costs a run over its segment: of an unfinished one the inputs are kept.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.segmented import Segmented
from seqjax.nn.transformer import Transformer
from seqjax.ops.positions import places


class Tokens(NamedTuple):
    m: jax.Array  # [memory, features]
    absent: jax.Array  # int32 [], first places of the segment where no step is


class RMT(Segmented):
    block = True
    structure = "a Transformer from segment to segment"
    learned = ""  # m_0 is a parameter

    def __init__(
        self,
        features: int,
        *,
        heads: int = 1,
        length: int = 64,
        memory: int = 4,
        depth: int = 2,
        expansion: float = 2.0,
        rngs: nnx.Rngs,
    ):
        if memory < 1:
            raise ValueError(f"memory must be at least 1 token, got {memory}")
        self.features = self.out_features = features
        self.length = length
        self.m_0 = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (memory, features)))
        self.transformer = Transformer(
            features, depth=depth, heads=heads, expansion=expansion, rngs=rngs
        )

    def memory(self):
        return Tokens(self.m_0[...], jnp.zeros((), jnp.int32))

    def aligned(self, batch: int, steps: int, dtype=jnp.float32):
        """The state of a batch of sequences of so many steps, whose last segments are whole."""
        absent = jnp.full(batch, -steps % self.length, jnp.int32)
        h = self.batch_state(batch, dtype)
        return h._replace(memory=h.memory._replace(absent=absent), count=absent)

    def segment(self, m, x, flow):
        tokens, absent = m.now
        n, C = len(tokens), len(x)
        tokens = tokens.astype(x.dtype)
        there = (jnp.arange(C, dtype=jnp.int32) >= absent)[None]
        # read tokens see those before them, steps also the memory, what is written all
        sees = jnp.tri(2 * n + C, dtype=bool)
        sees = sees.at[n : n + C, n : n + C].set(flow.joined(C) & there)
        sees = sees.at[n + C :, n : n + C].set(there)
        place, _ = places(-absent, C, resets=flow.resets)
        token = jnp.arange(n, dtype=jnp.int32)
        positions = jnp.concatenate([token, n + place, n + C - absent + token])
        z = self.transformer(jnp.concatenate([tokens, x, tokens]), positions, sees)
        return z[n : n + C], Tokens(z[n + C :], jnp.zeros((), jnp.int32))
