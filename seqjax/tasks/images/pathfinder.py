"""Pathfinder and Path-X (arXiv:2011.04006; the paths of arXiv:1805.08315): are two dots connected?

An image has two long dashed paths, shorter ones that distract, and two dots: at both ends of one
long path (1), or each at an end of another (0).  Its pixels come one by one, row by row:

    x float32 [B, T, 1] in [0, 1]      y int32 [B]      T = side^2: 1024 is Pathfinder, 16384 Path-X

or, which is easier, row by row, x [B, side, side], or as a still that is shown whole at each of T
steps, x [B, T, side, side, 1], for models whose state has places (as that of arXiv:1805.08315).

A path is a chain of `contour` strokes.  With every stroke it turns by an angle a of a density
cos^2(c a), |c a| < pi / 2, and it keeps its distance from the frame, from the others and from what
it was three strokes ago; one that cannot go on is drawn anew, one that distracts is tried four
times.  Strokes have soft edges: a pixel is as bright as it is covered.

The sizes are those published with each side (`SIZES`), and so are the lengths of paths, 6, 9 and 14
for easy, intermediate and hard; the drawing is our own.  There paths turn by whole pixels, are kept
apart by masks, and are resampled from twice the size.  A side of 16 is for small machines.

Published accuracies (%): Transformer 71.40 (arXiv:2011.04006), S4 94.20, Path-X 96.35
(arXiv:2111.00396), S5 95.33 and 98.58 (arXiv:2208.04933); the one before found none on Path-X.

Baseline: a guess.
Length generalisation: none, a longer image is another scale.
"""

from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.ranges import Count
from seqjax.tasks.task import Batch, Classes, Features, Spec, Task, sampler, uniform_baseline

TURNS = 17  # directions that are tried at once
TRIES = 4  # for each path that distracts


class Size(NamedTuple):
    """In pixels."""

    stroke: float
    margin: float  # half of a gap, and of the distance between paths
    thickness: float
    radius: float  # of a dot
    seeds: float  # between the first ends of the long paths
    continuity: float  # c
    distractors: int  # strokes of all paths that distract
    brightness: float


SIZES = {
    16: Size(1.5, 0.75, 0.5, 1.2, 4, 1.0, 6, 1.5),
    32: Size(2, 1, 0.5, 1.5, 7, 1.0, 20, 1.5),
    64: Size(5, 1, 1, 2.5, 12, 1.8, 22, 0.8),
    128: Size(5, 2.5, 1.5, 3, 20, 1.8, 35, 0.9),
    256: Size(5, 3, 2, 5, 27, 1.8, 30, 1.0),
}
PADDING = 1


class Strokes(NamedTuple):
    """From pivot to pivot, the points in the middle of gaps at which paths turn."""

    ends: jax.Array  # [N, 2, 2]: of the first long path in order, of the second, of the others
    there: jax.Array  # bool [N]


def pathfinder(
    *, contour: Count = 14, rows: Count | None = None, still: Count | None = None
) -> Task:
    """Whether two dots are connected, for T = side^2 of the sides 16, 32, 64, 128 and 256.

    contour: strokes of a long path; a third of it has one that distracts.
    rows: the side of images that are read a row at a step, T = rows; None: pixel by pixel.
    still: the side of images that are seen whole at each of any number of steps.
    """
    if rows is not None and still is not None:
        raise ValueError(f"images come by rows or are still, got rows={rows} and still={still}")
    for name, given in dict(rows=rows, still=still).items():
        if given not in (None, *SIZES):
            known = ", ".join(map(str, SIZES))
            raise ValueError(f"pathfinder has sides of {known}, got {name}={given}")

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        side = still or rows or round(length**0.5)
        if rows is None and still is None and (side not in SIZES or side**2 != length):
            known = ", ".join(str(one**2) for one in SIZES)
            raise ValueError(f"pathfinder has a length of {known} pixels, got {length}")
        if rows not in (None, length):
            raise ValueError(f"images of {rows} rows have a length of {rows}, got {length}")
        key_paths, key_label, key_end = jax.random.split(key, 3)
        keys = jax.random.split(key_paths, batch)
        strokes = jax.vmap(partial(draw, side=side, contour=contour))(keys)
        y = jax.random.randint(key_label, (batch,), 0, 2, jnp.int32)
        first = jax.random.randint(key_end, (batch,), 0, 2, jnp.int32)
        second = jnp.where(y == 1, first, 1 - first)
        image = jax.vmap(partial(render, side=side, contour=contour))(strokes, first, second)
        if still is None:
            x = image.reshape(batch, length, rows or 1)
        else:
            x = jnp.broadcast_to(image[:, None, :, :, None], (batch, length, side, side, 1))
        return Batch(x, y, jnp.ones(batch, jnp.float32))

    seen = Features(rows or 1) if still is None else Features(still, still, 1)
    spec = Spec(seen, Classes(2, per_step=False))
    return Task("pathfinder", spec, sample, lambda length: uniform_baseline(2),
                classes=["apart", "connected"])  # fmt: skip


class Drawn(NamedTuple):
    """What is there so far: points along strokes and gaps [N, P, 2], and which of the N are."""

    points: jax.Array
    used: jax.Array


def draw(key: jax.Array, side: int, contour: int) -> Strokes:
    """Two long paths and those that distract, of one image."""
    size = SIZES[side]
    short = max(1, contour // 3)
    count = max(1, size.distractors // short)
    reach = size.stroke + 2 * size.margin
    along = jnp.linspace(0, reach, int(np.ceil(reach / 1.5)) + 1, dtype=jnp.float32)
    apart = 2 * size.margin + size.thickness
    angles = jnp.linspace(-1, 1, TURNS + 2, dtype=jnp.float32)[1:-1] * (
        np.float32(np.pi / 2 / size.continuity)
    )
    likely = 2 * jnp.log(jnp.cos(size.continuity * angles))

    def stroke(key, drawn, slot, before, pivot, angle):
        """The next stroke from a pivot, of a direction that is free, if there is one."""
        turned = angle + angles
        way = jnp.stack([jnp.sin(turned), jnp.cos(turned)], axis=1)
        points = pivot[None, None] + along[None, :, None] * way[:, None]  # [TURNS, P, 2]
        inside = jnp.all((points >= PADDING) & (points <= side - 1 - PADDING), axis=(1, 2))
        seen = drawn.used & (jnp.arange(len(drawn.used), dtype=jnp.int32) != before)
        pairs = [(points[:, None, p], drawn.points[None, :, q])
                 for p in range(len(along)) for q in range(len(along))]  # fmt: skip
        far = [(a[..., 0] - b[..., 0]) ** 2 + (a[..., 1] - b[..., 1]) ** 2 for a, b in pairs]
        far = reduce(jnp.minimum, far) >= apart**2  # [TURNS, N]: one loop over them, not one in it
        free = inside & jnp.all(far | ~seen[None], axis=1)
        which = jax.random.categorical(key, jnp.where(free, likely, -jnp.inf))
        ok = jnp.any(free)
        now = jnp.where(ok, points[which], drawn.points[slot])
        drawn = Drawn(drawn.points.at[slot].set(now), drawn.used.at[slot].set(ok))
        return drawn, ok, now[-1], turned[which]

    def anywhere(key):
        """A first pivot and a direction."""
        key_at, key_angle = jax.random.split(key)
        at = jax.random.uniform(key_at, (2,), jnp.float32, PADDING, side - 1 - PADDING)
        return at, jax.random.uniform(key_angle, (), jnp.float32, -np.pi, np.pi)

    def one_each(key, drawn, at, first, strokes, i):
        """Stroke i of paths, each from where and how it ended before; whether they could."""
        keys, new, ok = jax.random.split(key, len(at)), [], jnp.asarray(True)
        for n, (pivot, angle) in enumerate(at):
            slot = first + n * strokes + i
            before = jnp.where(i > 0, slot - 1, -1)
            drawn, could, *end = stroke(keys[n], drawn, slot, before, pivot, angle)
            ok, new = ok & could, [*new, tuple(end)]
        return drawn, new, ok

    def grow(key, drawn, start, first, strokes):
        """A path from its start; whether it could."""

        def step(carry, now):
            drawn, ok, at = carry
            drawn, at, could = one_each(now[0], drawn, at, first, strokes, now[1])
            return (drawn, ok & could, at), None

        ways = jax.random.split(key, strokes), jnp.arange(strokes, dtype=jnp.int32)
        return jax.lax.scan(step, (drawn, jnp.asarray(True), [start]), ways)[0][:2]

    def nothing(slots):
        points = jnp.zeros((slots, len(along), 2), jnp.float32)
        return Drawn(points, jnp.zeros(slots, bool))

    def two_starts(key):
        key_one, key_two, key_apart = jax.random.split(key, 3)
        (at, angle), (_, other) = anywhere(key_one), anywhere(key_two)
        turn = jax.random.uniform(key_apart, (), jnp.float32, -np.pi, np.pi)
        second = at + size.seeds * jnp.stack([jnp.sin(turn), jnp.cos(turn)])
        return [(at, angle), (second, other)]

    def long_paths(carry):
        """A stroke of each; where one cannot go on both begin anew at once, which is why a batch
        of images waits for strokes and not for paths."""
        key, i, drawn, at = carry
        key, key_start, key_grow = jax.random.split(key, 3)
        drawn, at, ok = one_each(key_grow, drawn, at, 0, contour, i)
        anew = nothing(2 * contour), two_starts(key_start)
        drawn, at = jax.tree.map(lambda on, off: jnp.where(ok, on, off), (drawn, at), anew)
        return key, jnp.where(ok, i + 1, 0), drawn, at

    key_long, key_first, key_short = jax.random.split(key, 3)
    start = key_long, jnp.asarray(0, jnp.int32), nothing(2 * contour), two_starts(key_first)
    drawn = jax.lax.while_loop(lambda carry: carry[1] < contour, long_paths, start)[2]
    drawn = jax.tree.map(lambda *v: jnp.concatenate(v), drawn, nothing(count * short))

    def distract(carry, key):
        drawn, done = carry
        key_start, key_grow = jax.random.split(key)
        first = 2 * contour + jnp.minimum(done, count - 1) * short
        more, ok = grow(key_grow, drawn, anywhere(key_start), first, short)
        ok = ok & (done < count)
        kept = jax.tree.map(lambda new, old: jnp.where(ok, new, old), more, drawn)
        return (kept, done + ok.astype(jnp.int32)), None

    tries = jax.random.split(key_short, TRIES * count)
    drawn = jax.lax.scan(distract, (drawn, jnp.asarray(0, jnp.int32)), tries)[0][0]
    return Strokes(drawn.points[:, np.array([0, -1])], drawn.used)


def render(
    strokes: Strokes, first: jax.Array, second: jax.Array, side: int, contour: int
) -> jax.Array:
    """The image [side, side], with dots at the beginning of one long path (0 or 1) and at the end
    of another, or of the same."""
    size = SIZES[side]
    begin, end = strokes.ends[:, 0], strokes.ends[:, 1]
    length = jnp.maximum(jnp.linalg.norm(end - begin, axis=1, keepdims=True), 1e-6)
    way = (end - begin) / length
    a, b = begin + size.margin * way, end - size.margin * way
    places = jnp.arange(side, dtype=jnp.float32)
    pixels = jnp.stack(jnp.meshgrid(places, places, indexing="ij"), axis=-1)  # [side, side, 2]
    from_a, way_here = pixels[:, :, None] - a[None, None], way[None, None]
    along = jnp.clip(jnp.sum(from_a * way_here, axis=3), 0, size.stroke)
    away = jnp.linalg.norm(from_a - along[..., None] * way_here, axis=3)
    away = jnp.min(jnp.where(strokes.there[None, None], away, jnp.inf), axis=2)
    image = size.brightness * jnp.clip(size.thickness / 2 + 0.5 - away, 0, 1)
    for dot in (a[first * contour], b[second * contour + contour - 1]):
        away = jnp.linalg.norm(pixels - dot[None, None], axis=2)
        image = jnp.maximum(image, jnp.clip(size.radius + 0.5 - away, 0, 1))
    return jnp.minimum(image, 1)
