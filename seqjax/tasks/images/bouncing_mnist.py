"""Bouncing digits (arXiv:1502.04681, 1810.07411): the next frame of a video.

Digits begin anywhere in a square frame and move straight ahead, a tenth of the way from wall to
wall at each step, in a direction that is drawn uniformly; at a wall they turn back. Where they
overlap the brighter one is seen.

    p' = p + v / 10,  p in [0, 1]^2,  |v| = 1;   a coordinate that comes to 0 or 1 stays there for
                                                that step, and its velocity changes sign
    x float32 [B, T, side, side] in [0, 1]       y float32 [B, T, side^2], the frame after

Published are T = 20, two digits of 28 pixels of MNIST in frames of 64.  data="digits" are those of
scikit-learn, 8 pixels in frames of 18, which every machine has.  Validation is on digits of other
writers (the test images).

The loss is the cross entropy of all pixels of a frame, in nats; a grey pixel is the probability of
a white one.  arXiv:1502.04681 has it of ten frames after the tenth, here each frame is predicted
from those before it.

Baseline: the mean of each pixel.
Length generalisation: the same motion, longer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.answers import Bernoullis
from seqjax.core.ranges import Count
from seqjax.tasks.images.drawn import Drawn, Name, digits_of
from seqjax.tasks.task import Batch, Features, Metrics, Spec

SIDES = {"digits": 18, "mnist": 64}  # of a frame
SPEED = 0.1  # of the way from wall to wall, at each step


def bouncing_mnist(*, data: Name = "digits", digits: Count = 2) -> Drawn:
    """The frame after each frame, for any T.

    data: whose digits
    digits: how many are in a frame
    """
    side = SIDES[data]
    train, held_out = (part.images for part in digits_of(data))

    def sampling(images: jax.Array) -> Callable[[jax.Array, int, int], Batch]:
        def sample(key: jax.Array, batch: int, length: int) -> Batch:
            video = videos(images, key, batch, length + 1, side, digits)
            y = video[:, 1:].reshape(batch, length, side * side)
            return Batch(video[:, :-1], y, jnp.ones((batch, length), jnp.float32))

        return sample

    def baseline(length: int) -> Metrics:
        drawn = (sampling(part)(jax.random.key(0), 256, length) for part in (train, held_out))
        return spec.outputs.baseline(*((np.asarray(b.y), np.asarray(b.mask)) for b in drawn))

    spec = Spec(Features(side, side), Bernoullis(side * side, per_step=True))
    return Drawn("bouncing_mnist", spec, sampling(train), baseline, held_out=sampling(held_out))


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def videos(
    images: jax.Array, key: jax.Array, batch: int, length: int, side: int, digits: int
) -> jax.Array:
    """Frames [B, T, side, side] of digits that are drawn from uint8 images [N, size, size]."""
    key_which, key_place, key_way = jax.random.split(key, 3)
    which = jax.random.randint(key_which, (batch, digits), 0, len(images), jnp.int32)
    place = jax.random.uniform(key_place, (batch, digits, 2), jnp.float32)
    angle = jax.random.uniform(key_way, (batch, digits), jnp.float32, 0, 2 * np.pi)
    way = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=2)

    def step(carry, _):
        place, way = carry
        place = place + SPEED * way
        over = (place <= 0) | (place >= 1)
        place, way = jnp.clip(place, 0, 1), jnp.where(over, -way, way)
        return (place, way), place

    places = jax.lax.scan(step, (place, way), length=length)[1]  # [T, B, digits, 2]
    shown, size = images[which].astype(jnp.float32) / 255, images.shape[1]
    corners = (places * (side - size)).astype(jnp.int32)

    def put(image, corner):
        return jax.lax.dynamic_update_slice(jnp.zeros((side, side), jnp.float32), image, corner)

    over_digits = jax.vmap(put)
    frames = jax.vmap(jax.vmap(over_digits), (None, 0))(shown, corners)  # [T, B, digits, ...]
    return jnp.max(frames, axis=2).swapaxes(0, 1)
