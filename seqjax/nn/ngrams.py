"""Embeddings of hashed n-grams, looked up by exact arithmetic of 64 bits.

A layer is given floats, so a token comes as its three digits to base 256, which every dtype holds
as they are: tokens are below 2^24.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.core.flow import Flow
from seqjax.nn.linear import per_head, wide
from seqjax.ops.convolution import short_convolution

DIGITS, BITS = 3, 8


def digits(tokens: Array, dtype: Any) -> Array:
    """int [..] to [.., DIGITS] in `dtype`, the lowest first."""
    left = tokens.astype(jnp.int32)
    each = [left >> BITS * place & (2**BITS - 1) for place in range(DIGITS)]
    return jnp.stack(each, axis=-1).astype(dtype)


def token_of(digits: Array) -> Array:
    """[.., DIGITS] to tokens float [..]; what is no digit counts as the nearest one."""
    each = jnp.clip(jnp.round(wide(digits)), 0, 2**BITS - 1)
    return each @ jnp.asarray(2.0 ** (BITS * np.arange(DIGITS)), each.dtype)


def product(x: Array, a: int) -> tuple[Array, Array]:
    """The words (high, low) of x a modulo 2^64, for x uint32 [..] and an integer a >= 0."""
    high, low = (jnp.uint32(word & 0xFFFFFFFF) for word in (a >> 32, a))
    half, mask = jnp.uint32(16), jnp.uint32(0xFFFF)
    (x0, x1), (a0, a1) = ((z & mask, z >> half) for z in (x, low))
    one, two = x0 * a1, x1 * a0
    middle = (x0 * a0 >> half) + (one & mask) + (two & mask)
    return x * high + x1 * a1 + (one >> half) + (two >> half) + (middle >> half), x * low


def remainder(high: Array, low: Array, divisors: np.ndarray) -> Array:
    """uint32 [.., H]: words (high, low) [..] modulo divisors [H] below 2^31."""
    step = 32 - int(divisors.max()).bit_length()  # bits at a time: what is left stays below 2^32
    high, low = high[..., None], low[..., None]
    p = jnp.asarray(divisors, jnp.uint32).reshape((1,) * (high.ndim - 1) + divisors.shape)
    left = high % p
    for start in range(32, 0, -step):
        count = min(step, start)
        part = low >> jnp.uint32(start - count) & jnp.uint32((1 << count) - 1)
        left = (left << jnp.uint32(count) | part) % p
    return left


class HashedNGrams(nnx.Module):
    """e_t = [table[r_1], table[r_2], ..], of the n-grams that end at step t, for n = 2 .. N
    (Engram, arXiv:2601.07372 sec. 2.2).

        w_0 = x_t,  w_s = x_{t-s}, or `end` if it or a step between them is `end`
        m_n = a_0 w_0 xor a_1 w_1 xor .. xor a_{n-1} w_{n-1}                modulo 2^64
        r_h = p_1 + .. + p_{h-1} + m_n mod p_h                              h a head of order n

    multipliers: a, N of them. divisors: p of the heads of order 2, then of order 3, .., equally
    many of each. Nothing stands before a sequence but `end`. State: the N - 1 tokens before, of
    which the column s - 1 gives w_s.
    """

    def __init__(
        self,
        size: int,
        *,
        multipliers: Sequence[int],
        divisors: Sequence[int],
        end: int,
        rows: int | None = None,
        rngs: nnx.Rngs,
    ):
        """size: of e_t. rows: of the table, if more than the sum of the divisors."""
        self.multipliers, self.divisors, self.end = tuple(multipliers), tuple(divisors), end
        self.orders = len(multipliers) - 1
        per_head("heads of n-grams", len(divisors), self.orders)
        if rows is not None and rows < sum(divisors):
            raise ValueError(f"the divisors need {sum(divisors)} rows, got rows = {rows}")
        shape = rows or sum(divisors), per_head("size of n-grams", size, len(divisors))
        self.table = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape))

    def initial(self) -> Array:
        return jnp.full((self.orders, self.orders), float(self.end))

    def __call__(self, tokens: Array, h: Any, flow: Flow) -> tuple[Array, Array]:
        """e [T, size] of whole floats [T], in at least float32, and the tokens before the next."""
        words, h = self.words(tokens, h, flow)
        return self.table[self.rows(words)].reshape(len(tokens), -1), h

    def words(self, tokens: Array, h: Any, flow: Flow) -> tuple[Array, Array]:
        """w uint32 [N, T]."""
        taps = jnp.flip(jnp.eye(self.orders + 1, dtype=tokens.dtype)[:, 1:], axis=0)
        each = jnp.broadcast_to(tokens[:, None], (len(tokens), self.orders))
        past, h = short_convolution(each, taps, h, flow=flow.of())
        words, over = [tokens], jnp.zeros(len(tokens), bool)
        for word in past.T:
            words.append(jnp.where(over, self.end, word))
            over = over | (word == self.end)
        return jnp.stack(words).astype(jnp.uint32), h

    def rows(self, words: Array) -> Array:
        """int32 [T, heads] of w [N, T]."""
        divisors = np.asarray(self.divisors).reshape(self.orders, -1)
        offsets = (np.cumsum(divisors) - divisors.reshape(-1)).reshape(divisors.shape)
        high, low = product(words[0], self.multipliers[0])
        rows = []
        for word, a, some, offset in zip(words[1:], self.multipliers[1:], divisors, offsets):
            more = product(word, a)
            high, low = high ^ more[0], low ^ more[1]
            rows.append(remainder(high, low, some).astype(jnp.int32) + jnp.int32(offset)[None])
        return jnp.concatenate(rows, axis=-1)
