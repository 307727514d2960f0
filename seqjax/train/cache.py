"""The neural cache (Grave, Joulin & Usunier 2017, arXiv:1612.04426): a language model remembers the
words that it saw lately, at evaluation, and is not trained for it.

    p_cache(w) = sum_i 1{w = x_{i+1}} exp(theta h_t . h_i) / sum_i exp(theta h_t . h_i)
    p(w) = (1 - lambda) p_vocab(w) + lambda p_cache(w)                                     sec. 3

over the last `size` pairs (h_i, x_{i+1}), i < t. h_t is what the head of the model reads, its
stream after the last norm, and x_{i+1} the token that followed. The pairs are a part of the state:
it goes on from batch to batch where that of the model does, a reset empties it, and no masked step
is in it. Where nothing is kept yet, p is p_vocab.

    log_p, h = NeuralCache(500, theta=0.1, weight=0.1)(model, x, h)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.flow import Flow
from seqjax.core.ranges import Count, Fraction, NotNegative, check
from seqjax.ops.dense_attention import attention_weights
from seqjax.stacks.model import Model, ModelState
from seqjax.train.generate import vocabulary_of


class Kept(NamedTuple):
    """Of one example: pairs, the newest at the end, and the stream whose token is not known yet."""

    keys: Array  # [size, features], h_i
    tokens: Array  # int32 [size], x_{i+1}
    held: Array  # bool [size], which of them there are
    last: Array  # [features], h_t
    begun: Array  # bool [], whether there is that one


@dataclass(frozen=True)
class NeuralCache:
    size: Count
    theta: NotNegative = 0.1
    weight: Fraction = 0.1  # lambda

    def __post_init__(self) -> None:
        check(self, NeuralCache, "cache")

    def start(self, model: Model, batch: int) -> tuple[ModelState, Kept]:
        """The state of a batch, before anything was seen. Raises ValueError for a model that
        writes no tokens."""
        vocabulary_of(model)
        h = model.start(batch)
        _, _, stream = jax.eval_shape(
            model.with_stream, jax.ShapeDtypeStruct((batch, 1), jnp.int32), h
        )
        D, none = stream.shape[2], jnp.zeros((batch, self.size), bool)
        keys = jnp.zeros((batch, self.size, D), stream.dtype)
        return h, Kept(keys, none.astype(jnp.int32), none, keys[:, 0], none[:, 0])

    def __call__(
        self,
        model: Model,
        x: Array,
        h: tuple[ModelState, Kept] | None = None,
        *,
        resets: Array | None = None,
        mask: Array | None = None,
        dt: Array | None = None,
    ) -> tuple[Array, tuple[ModelState, Kept]]:
        """log p [B, T, V] in at least float32 of the tokens x [B, T], and the state after them."""
        state, kept = self.start(model, len(x)) if h is None else h
        y, state, stream = model.with_stream(x, state, resets=resets, mask=mask, dt=dt)
        y, kept = jax.vmap(self.example)(y, x, stream, kept, Flow(resets, mask))
        return y, (state, kept)

    def example(self, y: Array, x: Array, h: Array, kept: Kept, flow: Flow) -> tuple[Array, Kept]:
        """The same of answers y [T, V], tokens x [T] and streams h [T, features]."""
        T, zero = len(x), jnp.zeros(1, jnp.int32)
        there = jnp.ones(T, bool) if flow.mask is None else flow.mask
        piece = jnp.zeros(T, jnp.int32)
        if flow.begins is not None:
            piece = jnp.cumsum(flow.begins, dtype=jnp.int32)
        # the stream before each step: that of the newest step that is not masked, if no reset
        # lies between
        streams = jnp.concatenate([kept.last[None], h])
        pieces = jnp.concatenate([zero, piece])
        place = jnp.where(jnp.append(kept.begun, there), jnp.arange(T + 1, dtype=jnp.int32), -1)
        newest = lax.cummax(place)
        before = newest[:-1]
        pair = there & (before >= 0) & (pieces[before] == piece)

        keys = jnp.concatenate([kept.keys, streams[before]])
        tokens = jnp.concatenate([kept.tokens, x.astype(jnp.int32)])
        held = jnp.concatenate([kept.held, pair])
        of = jnp.concatenate([jnp.zeros(self.size, jnp.int32), piece])
        count = jnp.cumsum(held, dtype=jnp.int32)
        older = count[self.size :, None] - count[None]  # by so many pairs; below 0: not yet there
        seen = held[None] & (of[None] == piece[:, None]) & (older >= 0) & (older < self.size)

        weights = attention_weights(h[:, None], keys[:, None], seen, scale=self.theta)[0]
        p_cache = jnp.zeros(y.shape, weights.dtype).at[:, tokens].add(weights)
        log_p = jax.nn.log_softmax(y)
        mixed = jnp.logaddexp(
            jnp.log1p(-self.weight) + log_p, jnp.log(self.weight * p_cache.astype(log_p.dtype))
        )
        log_p = jnp.where(jnp.any(seen, axis=1)[:, None], mixed, log_p)

        held, at = held & (of == piece[-1]), newest[-1]
        order = jnp.argsort(held, stable=True)[-self.size :]
        begun = (at >= 0) & (pieces[at] == piece[-1])
        return log_p, Kept(keys[order], tokens[order], held[order], streams[at], begun)
