"""Which way a digit moves: the class of a short video (as of actions, LRCN, arXiv:1411.4389).

A digit begins anywhere in a square frame, twice as wide as it is, and goes straight on in one of
`directions`, a pixel to two at each step; what leaves a frame comes in on the other side.

    x    float32 [B, T, side, side, 1]    in [0, 1], and noise
    y    int32 [B]                        k, of the direction 2 pi k / directions

Where a digit is has the same law in every class, so no frame by itself tells anything, and an
average of frames little: what they differ by does. Validation is on digits of other writers.

Baseline: a uniform guess.
Length generalisation: a longer video.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.ranges import NotNegative, Range
from seqjax.tasks.images.drawn import Drawn, Name, digits_of
from seqjax.tasks.task import Batch, Classes, Features, Metrics, Spec, uniform_baseline


def moving_digits(
    *,
    data: Name = "digits",
    directions: Annotated[int, Range(2)] = 4,
    noise: NotNegative = 0.1,
) -> Drawn:
    """The direction of each video of T frames.

    data: whose digits
    directions: how many there are
    noise: deviation of normal noise on every pixel
    """
    train, held_out = (part.images for part in digits_of(data))
    side = 2 * train.shape[1]

    def sampling(images: jax.Array) -> Callable[[jax.Array, int, int], Batch]:
        @partial(jax.jit, static_argnums=(1, 2))
        def sample(key: jax.Array, batch: int, length: int) -> Batch:
            keys = jax.random.split(key, 3)
            which = jax.random.randint(keys[0], (batch,), 0, len(images), jnp.int32)
            y = jax.random.randint(keys[1], (batch,), 0, directions, jnp.int32)
            x = frames(images[which], places(keys[2], y, directions, length, side))
            of_noise = jax.random.fold_in(key, 3)
            x = x + noise * jax.random.normal(of_noise, x.shape, jnp.float32)
            return Batch(x[..., None], y, jnp.ones(batch, jnp.float32))

        return sample

    def baseline(length: int) -> Metrics:
        del length
        return uniform_baseline(directions)

    spec = Spec(Features(side, side, 1), Classes(directions, per_step=False))
    return Drawn("moving_digits", spec, sampling(train), baseline, held_out=sampling(held_out))


def places(key: jax.Array, y: jax.Array, directions: int, length: int, side: int) -> jax.Array:
    """Row and column of the corner of each digit, int32 [B, T, 2], from 0 to below side."""
    of_start, of_speed = jax.random.split(key)
    start = jax.random.uniform(of_start, (len(y), 1, 2), jnp.float32, 0, side)
    speed = jax.random.uniform(of_speed, (len(y), 1, 1), jnp.float32, 1, 2)
    angle = 2 * np.pi / directions * y.astype(jnp.float32)
    way = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)[:, None]
    t = jnp.arange(length, dtype=jnp.float32)[None, :, None]
    return jnp.floor(start + t * speed * way).astype(jnp.int32) % side


def frames(images: jax.Array, corners: jax.Array) -> jax.Array:
    """[B, T, side, side] of uint8 images [B, size, size], twice as wide as they are."""
    size = images.shape[1]
    wide = jnp.pad(images.astype(jnp.float32) / 255, ((0, 0), (0, size), (0, size)))
    roll = partial(jnp.roll, axis=(0, 1))
    return jax.vmap(jax.vmap(roll, (None, 0)))(wide, corners)
