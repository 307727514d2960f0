"""The teacher of supervised memory training (arXiv:2606.06479, fig. 15): what to remember.

    m_t    = norm(encoder([x_{t-c+1} .. x_t, r_1 .. r_K])_{r_1 .. r_K})     m [K, features]
    logits = decoder([m_t, x_{t+1} .. x_{t+F-1}])                           of y_t .. y_{t+F-1}

r are K learned register tokens; norm is RMS without a weight. The decoder is causal, so the first
answer is read off the memory alone. The encoder sees its context in both directions, as in the
paper, and each memory is a pass over c tokens. With `causal=True` a context token sees only those
before it, and the registers of every prefix of a sequence can share one pass: T + 1 memories for
the price of about K + 1. The paper's synthetic experiments train all memories of a sequence, by
code that is not published; this is ours.

Tokens are integers; a token below zero is padding and is not seen. Positions are rotary, so padding
on the left changes nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.nn.transformer import Transformer, causal, normalise_memory


class Teacher(nnx.Module):
    def __init__(
        self,
        vocabulary: int,
        *,
        outputs: int | None = None,
        features: int = 256,
        memory: int = 16,
        encoder_depth: int = 8,
        decoder_depth: int = 4,
        heads: int = 8,
        causal: bool = False,
        rngs: nnx.Rngs,
    ):
        """Sizes are those of the official code. outputs: number of answers, if not `vocabulary`."""
        if memory < 1:
            raise ValueError(f"memory must be at least 1 token, got {memory}")
        self.features, self.memory, self.causal = features, memory, causal
        draw = nnx.initializers.normal(1.0)
        self.embed = nnx.Param(draw(rngs.params(), (vocabulary, features), jnp.float32))
        self.registers = nnx.Param(draw(rngs.params(), (memory, features), jnp.float32))
        self.encoder = Transformer(features, depth=encoder_depth, heads=heads, rngs=rngs)
        self.decoder = Transformer(features, depth=decoder_depth, heads=heads, rngs=rngs)
        self.head = nnx.Linear(features, outputs or vocabulary, rngs=rngs)

    def encode(self, x: Array) -> Array:
        """The memory [K, features] after a context x int [C]; an empty one gives m_0."""
        C, K = len(x), self.memory
        tokens = jnp.concatenate([self._embed(x), self.registers[...]])
        seen = jnp.concatenate([x >= 0, jnp.ones(K, bool)])
        sees = jnp.broadcast_to(seen[None], (C + K, C + K)) | jnp.eye(C + K, dtype=bool)
        if self.causal:
            place = jnp.minimum(jnp.arange(C + K), C)  # registers see each other
            sees &= place[:, None] >= place[None]
        return normalise_memory(self.encoder(tokens, sees=sees)[C:])

    def prefixes(self, x: Array) -> Array:
        """m_0 .. m_T [T + 1, K, features] of a sequence x int [T], each of all tokens before it.

        One pass for a causal teacher, a pass each for a bidirectional one.
        """
        T, K = len(x), self.memory
        if not self.causal:
            return self.windows(x, jnp.arange(T + 1), T)
        after = jnp.arange(T + 1)
        registers = jnp.broadcast_to(self.registers[...][None], (T + 1, K, self.features))
        tokens = jnp.concatenate([self._embed(x), registers.reshape(-1, self.features)])
        positions = jnp.concatenate([jnp.arange(T), (after[:, None] + jnp.arange(K)[None]).ravel()])
        owner = jnp.concatenate([jnp.full(T, -1), jnp.repeat(after, K)])  # of which prefix
        # How many tokens of x a row sees: itself and those before it, or all of its prefix.
        reach = jnp.concatenate([jnp.arange(1, T + 1), jnp.repeat(after, K)])
        to_tokens = (jnp.arange(T)[None] < reach[:, None]) & (x >= 0)[None]
        to_own = (owner[:, None] == owner[None, T:]) & (owner >= 0)[:, None]
        sees = jnp.concatenate([to_tokens, to_own], axis=1) | jnp.eye(len(tokens), dtype=bool)
        m = self.encoder(tokens, positions, sees)[T:]
        return normalise_memory(m.reshape(T + 1, K, self.features))

    def windows(self, x: Array, cuts: Array, context: int) -> Array:
        """The memories [n, K, features] before the steps `cuts` of x, each of `context` tokens."""
        padded = jnp.concatenate([jnp.full(context, -1, x.dtype), x])
        cut = lambda t: jax.lax.dynamic_slice_in_dim(padded, t, context)  # noqa: E731
        return jax.vmap(lambda t: self.encode(cut(t)))(cuts)

    def decode(self, m: Array, x: Array) -> Array:
        """Logits [F, outputs] of the next F answers, given the memory and the next inputs x [F].

        Answer j is read off m and x[:j]; the last input is not needed.
        """
        tokens = jnp.concatenate([m, self._embed(x[:-1])])
        y = self.decoder(tokens, sees=causal(len(tokens)))
        return self.head(y[self.memory - 1 :])

    def readout(self, m: Array) -> Array:
        """Logits [outputs] of the answer that the memory alone gives."""
        return self.head(self.decoder(m, sees=causal(len(m)))[-1])

    def _embed(self, x: Array) -> Array:
        return self.embed[jnp.maximum(x, 0)]
