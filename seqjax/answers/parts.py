"""Answers at many steps, of which only some are there at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from seqjax.core.mesh import kept, loop, placed


@dataclass(frozen=True)
class InParts:
    """What `read` makes of the stream [B, T, F]: answers [B, T, size], `part` steps at a time.

    weights: what read(weights, stream) reads with, in the precision that their gradient is summed
    in over the parts. there: bool [B, T], not set where the answer is zero; None: nowhere.
    """

    read: Callable[[Any, jax.Array], jax.Array]
    weights: Any
    stream: jax.Array
    there: jax.Array | None
    size: int
    part: int
    dtype: Any  # of the answers

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.stream.shape[:2], self.size)

    def each(self, function: Callable[..., Any], *beside: jax.Array) -> Any:
        """function(y_hat, *beside), which looks at each step by itself, of all steps: leaves
        [B, T]. beside: arrays [B, T, ...].

        The backward pass makes the answers of a part again. Where time is split over devices, each
        has its own steps in every part.
        """
        (B, T), place = self.stream.shape[:2], placed(self.stream)
        devices = 1 if place is None else prod(place.mesh.shape[axis] for axis in place.time)
        own = T // devices
        part = min(self.part, own)
        n, rest = divmod(own, part)

        @jax.checkpoint
        def of(weights: Any, now: tuple[Any, ...]) -> Any:
            stream, there, *beside = now
            y_hat = self.read(weights, kept(stream))
            if there is not None:
                y_hat = jnp.where(there[..., None], y_hat, 0)
            return function(y_hat, *beside)

        def steps(begin: int, end: int) -> Callable[[jax.Array], jax.Array]:
            """Those of each device."""
            return lambda x: x.reshape(B, devices, own, *x.shape[2:])[:, :, begin:end]

        def cut(x: jax.Array) -> jax.Array:
            x = x.reshape(B, devices, n, part, *x.shape[3:])
            return jnp.moveaxis(x, 2, 0).reshape(n, B, devices * part, *x.shape[4:])

        def joined(x: jax.Array) -> jax.Array:
            x = x.reshape(n, B, devices, part, *x.shape[3:])
            return jnp.moveaxis(x, 0, 2).reshape(B, devices, n * part, *x.shape[4:])

        given = (self.stream, self.there, *beside)
        first = jax.tree.map(cut, jax.tree.map(steps(0, n * part), given))
        found = loop(lambda carry, now: (carry, of(self.weights, now)), None, first)[1]
        found = jax.tree.map(joined, found)
        if rest:
            last = jax.tree.map(steps(n * part, own), given)
            last = jax.tree.map(lambda x: x.reshape(B, devices * rest, *x.shape[3:]), last)
            more = jax.tree.map(
                lambda x: x.reshape(B, devices, rest, *x.shape[2:]), of(self.weights, last)
            )
            found = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=2), found, more)
        return jax.tree.map(lambda x: x.reshape(B, T, *x.shape[3:]), found)
