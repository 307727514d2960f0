"""A line of digits, read column by column: labels that are not aligned with the frames.

Digits stand one after the other in a strip of pixels, each stretched to a width of its own, at a
height and after a gap of its own, down to none; a frame is a column of the strip (as lines of
handwriting are read, Graves et al. 2009). What is to be read is which digits they are:

    x    float32 [B, T, H]     a column, in [0, 1], and noise; H is the size of a digit and a half
    y    int32 [B, L]          labels digit + 1, filled up with 0, L = T / (2 size)

How many digits there are is uniform from 1 to L. Nothing tells which frames belong to a digit, and
the loss sums over all ways to align them (`Labels`). Validation is on digits of other writers.

Metrics: loss, label_error_rate: insertions, deletions and substitutions over the number of digits.
Baseline: no digit at all has a label error rate of 1; the loss is that of labels and the blank all
as likely in every frame.
Length generalisation: a longer line, with more digits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqjax.answers import Labels
from seqjax.core.ranges import NotNegative
from seqjax.tasks.images.drawn import Digits, Drawn, Name, digits_of
from seqjax.tasks.task import Batch, Features, Metrics, Spec


def digit_lines(*, data: Name = "digits", noise: NotNegative = 0.1) -> Drawn:
    """The digits of a line of T columns.

    data: whose digits
    noise: deviation of normal noise on every pixel
    """
    train, held_out = digits_of(data)
    size = train.images.shape[1]

    def sampling(digits: Digits) -> Callable[[jax.Array, int, int], Batch]:
        @partial(jax.jit, static_argnums=(1, 2))
        def sample(key: jax.Array, batch: int, length: int) -> Batch:
            most = length // (2 * size)
            if not most:
                raise ValueError(f"digit_lines has at least {2 * size} columns, got {length}")
            of_layout, of_noise = jax.random.split(key)
            line = layout(of_layout, batch, length, most, size, len(digits.images))
            x = jax.vmap(lambda one: strip(digits.images, one, length))(line)
            x = x + noise * jax.random.normal(of_noise, x.shape, jnp.float32)
            there = jnp.arange(most, dtype=jnp.int32)[None] < line.count[:, None]
            y = jnp.where(there, digits.labels[line.which] + 1, 0)
            return Batch(x, y, jnp.ones(batch, jnp.float32))

        return sample

    def baseline(length: int) -> Metrics:
        _, y, mask, *_ = sampling(held_out)(jax.random.key(0), 256, length)
        even = jnp.zeros((len(y), length, outputs.size), jnp.float32)
        return {"loss": float(outputs.score(even, y, mask)["loss"]), "label_error_rate": 1.0}

    outputs = Labels(10)
    spec = Spec(Features(size + size // 2), outputs)
    return Drawn("digit_lines", spec, sampling(train), baseline, held_out=sampling(held_out))


class Line(NamedTuple):
    """Where the L digits of a line are; those from `count` on are not there."""

    which: jax.Array  # [L], of the images
    count: jax.Array  # []
    start: jax.Array  # [L], the first column
    width: jax.Array  # [L]
    top: jax.Array  # [L], rows above


def layout(key: jax.Array, batch: int, length: int, most: int, size: int, images: int) -> Line:
    """Of `batch` lines. A digit and the gap before take 2 size columns at most, so that all fit."""
    keys = jax.random.split(key, 6)

    def whole(key, low, high, *shape):
        return jax.random.randint(key, (batch, *shape), low, high + 1, jnp.int32)

    width = whole(keys[0], size - size // 4, size + size // 2, most)
    gap = whole(keys[1], 0, size // 2, most)
    count = whole(keys[2], 1, most)
    there = jnp.arange(most, dtype=jnp.int32)[None] < count[:, None]
    left = length - jnp.sum(jnp.where(there, width + gap, 0), axis=1, dtype=jnp.int32)
    begin = jax.random.uniform(keys[3], (batch,), jnp.float32) * (left + 1).astype(jnp.float32)
    ends = jnp.cumsum(width + gap, axis=1, dtype=jnp.int32)
    start = jnp.minimum(begin.astype(jnp.int32), left)[:, None] + ends - width
    which = whole(keys[4], 0, images - 1, most)
    return Line(which, count, start, width, whole(keys[5], 0, size // 2, most))


def strip(images: jax.Array, line: Line, length: int) -> jax.Array:
    """The columns [T, H] of one line."""
    size = images.shape[1]
    t = jnp.arange(length, dtype=jnp.int32)[:, None]
    inside = (line.start[None] <= t) & (t < (line.start + line.width)[None])
    inside &= (jnp.arange(len(line.start), dtype=jnp.int32) < line.count)[None]
    n = jnp.argmax(inside, axis=1)  # the digit of each column
    column = (t[:, 0] - line.start[n]) * size // line.width[n]
    ink = images[line.which[n], :, jnp.clip(column, 0, size - 1)].astype(jnp.float32) / 255
    row = jnp.arange(size + size // 2, dtype=jnp.int32)[None] - line.top[n][:, None]
    seen = jnp.take_along_axis(ink, jnp.clip(row, 0, size - 1), axis=1)
    there = jnp.any(inside, axis=1)[:, None] & (row >= 0) & (row < size)
    return jnp.where(there, seen, 0)
