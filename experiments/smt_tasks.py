"""The synthetic tasks of experiments.smt: tokens in, answers where they are asked.

Needle and stack as the official code of arXiv:2606.06479 draws them, parity asked on every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Task:
    """sample(key, batch, length) -> tokens x and answers y, int [B, T]; -1 where none is asked."""

    sample: Callable[[jax.Array, int, int], tuple[jax.Array, jax.Array]]
    vocabulary: int
    outputs: int
    held_out: Callable[[jax.Array, int, int], tuple[jax.Array, jax.Array]] | None = None


def needle(elements: int = 8) -> Task:
    """A marker 0 in the first half, the needle behind it; asked for at the end, at the query 0."""

    def sample(key, batch, length):
        noise, where, what = jax.random.split(key, 3)
        x = jax.random.randint(noise, (batch, length), 1, elements + 1)
        place = jax.random.randint(where, (batch,), 1, max(2, length // 2))
        found = jax.random.randint(what, (batch,), 1, elements + 1)
        rows = jnp.arange(batch)
        x = x.at[rows, place - 1].set(0).at[rows, place].set(found).at[:, -1].set(0)
        return x, jnp.full_like(x, -1).at[:, -1].set(found - 1)

    return Task(sample, elements + 1, elements)


def stack(elements: int = 4, depth: int = 10) -> Task:
    """Pushes of an element, and pops (0) that answer what they took; a coin where both can be."""

    def sample(key, batch, length):
        def body(carry, key):
            stored, size = carry
            coin, what = jax.random.split(key)
            push = (jax.random.bernoulli(coin, 0.5, (batch,)) & (size < depth)) | (size == 0)
            new = jax.random.randint(what, (batch,), 1, elements + 1)
            rows, top = jnp.arange(batch), jnp.maximum(size - 1, 0)
            taken = stored[rows, top]
            at = jnp.where(push, size, depth)  # beyond the end: not written
            stored = stored.at[rows, at].set(new, mode="drop")
            x, y = jnp.where(push, new, 0), jnp.where(push, -1, taken - 1)
            return (stored, jnp.where(push, size + 1, size - 1)), (x, y)

        empty = jnp.zeros((batch, depth), jnp.int32), jnp.zeros(batch, jnp.int32)
        x, y = jax.lax.scan(body, empty, jax.random.split(key, length))[1]
        return x.T, y.T

    return Task(sample, elements + 1, elements)


def parity() -> Task:
    """The running parity of a bit stream, asked on every step."""

    def sample(key, batch, length):
        x = jax.random.bernoulli(key, 0.5, (batch, length)).astype(jnp.int32)
        return x, jnp.cumsum(x, axis=1) % 2

    return Task(sample, 2, 2)
