"""Tasks of frames: what is drawn is where the geometry, the equation or the motion puts it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.integrate import solve_ivp
from test_tasks import BATCH, built, draw, score

from seqjax.data import prepared
from seqjax.tasks.images import (
    bouncing_mnist,
    digit_lines,
    moving_digits,
    pathfinder,
    pendulum,
)
from seqjax.tasks.images.pathfinder import PADDING


def components(lines) -> Any:
    return ndimage.label(lines)


@pytest.mark.parametrize("options, message", [
    (dict(rows=17), "sides of 16, 32, 64, 128, 256, got rows=17"),
    (dict(still=8), "sides of 16, 32, 64, 128, 256, got still=8"),
    (dict(rows=16, still=16), "by rows or are still, got rows=16 and still=16"),
])  # fmt: skip
def test_paths_that_cannot_be_shown(options, message):
    with pytest.raises(ValueError, match=message):
        built("pathfinder", **options)


@pytest.mark.share(1)
@pytest.mark.share(1)
@pytest.mark.parametrize("side, contour", [(16, 3), (32, 14)])
def test_dots_are_connected_where_a_flood_comes_from_one_to_the_other(side, contour):
    """Along the paths without their gaps, eight times as fine; dots are found in the image."""
    key, n, fine = jax.random.key(5), 24, 8
    batch = built("pathfinder", contour=contour).sample(key, n, side**2)
    keys = jax.random.split(jax.random.split(key, 3)[0], n)
    draw = jax.jit(jax.vmap(lambda key: pathfinder.draw(key, side, contour)))
    ends, there = map(np.asarray, draw(keys))
    by_rows = built("pathfinder", contour=contour, rows=side).sample(key, n, side)
    np.testing.assert_array_equal(by_rows.x.reshape(batch.x.shape), batch.x)
    still = built("pathfinder", contour=contour, still=side).sample(key, n, 2)
    for look in (0, 1):
        np.testing.assert_array_equal(still.x[:, look].reshape(batch.x.shape), batch.x)
    images = np.asarray(batch.x).reshape(n, side, side)
    assert images.min() == 0 and images.max() == 1 and 0 < np.mean(batch.y) < 1
    for image, strokes, used, y in zip(images, ends, there, np.asarray(batch.y)):
        assert used[: 2 * contour].all() and PADDING <= strokes[used].min()
        assert strokes[used].max() <= side - 1 - PADDING
        along = np.linspace(0, 1, 20 * fine)[:, None, None]
        points = (1 - along) * strokes[used][:, 0] + along * strokes[used][:, 1]
        lines = np.zeros((side * fine, side * fine), bool)
        lines[tuple(np.rint(points * fine).astype(int).reshape(-1, 2).T)] = True
        parts, count = components(ndimage.binary_dilation(lines, iterations=2))
        assert count == 2 + (used[2 * contour :].sum()) // max(1, contour // 3)
        bright, dots = ndimage.uniform_filter(image, 3), []
        rows, columns = np.mgrid[:side, :side]
        for _ in range(2):
            r, c = divmod(int(bright.argmax()), side)
            dots.append((r, c))
            bright[np.hypot(rows - r, columns - c) < pathfinder.SIZES[side].radius + 1] = 0
        nearest = ndimage.distance_transform_edt(parts == 0, return_indices=True)[1]
        one, other = (parts[tuple(nearest[:, r * fine, c * fine])] for r, c in dots)
        assert (one == other) == y


def test_a_pendulum_swings_as_its_equation_and_never_higher_than_at_the_start():
    dt, n = 0.02, 6
    quiet = dict(interval=dt, transition=0.0, noise=False)
    for friction in (0.0, 0.5):
        task = built("pendulum", friction=friction, **quiet)
        batch = task.sample(jax.random.key(3), n, 40)
        times = np.cumsum(np.asarray(batch.dt), axis=1) - 1
        assert times.min() >= 0 and times.max() < 80 and (np.asarray(batch.dt) >= 1).all()
        keys = jax.random.split(jax.random.split(jax.random.key(3), 4)[0])
        starts = np.asarray(jax.random.uniform(keys[0], (n,), jnp.float32, 0, 2 * np.pi))
        for start, t, y in zip(starts.astype(float), times * dt, np.asarray(batch.y)):
            found = solve_ivp(
                lambda _, s, c: [s[1], 3 * 9.81 * np.sin(s[0]) - c * s[1]],
                (0, t[-1]), [start, 0], t_eval=t, rtol=1e-9, atol=1e-9, args=(friction,),
            )  # fmt: skip
            b = found.y[0] - np.pi
            np.testing.assert_allclose(y, np.stack([np.sin(b), np.cos(b)], axis=1), atol=2e-3)
            assert (y[:, 1] >= -np.cos(start) - 1e-3).all()  # at rest first, and energy is kept


def test_frames_of_a_pendulum_show_its_angle_where_they_are_clear():
    batch = draw("pendulum", 12)
    x, y = np.asarray(batch.x), np.asarray(batch.y)
    assert x.min() >= 0 and x.max() <= 1
    clear = np.asarray(draw("pendulum", 12, noise=False).x)
    np.testing.assert_array_equal(draw("pendulum", 12, noise=False).y, y)
    place = np.arange(24) - 11.5
    right, down = (np.einsum("bthw,w->bt", v, place) for v in (clear, clear.swapaxes(2, 3)))
    middle = np.stack([right, down], axis=2)
    middle /= np.linalg.norm(middle, axis=2, keepdims=True)
    assert (np.sum(middle * y, axis=2) > 0.999).all()
    assert abs(clear.sum(axis=(2, 3)) - 1.5 * 10.3).max() < 3  # pixels of the rod: width x length
    # the noise of a pixel beside the rod: uniform, times one factor for all of a frame
    seen = np.cumsum(np.asarray(batch.dt), axis=1) - 1
    np.testing.assert_array_equal(x[seen < 5], clear[seen < 5])
    beside = clear == 0
    share = np.array([[2 * frame[b].mean() for frame, b in zip(*row)] for row in zip(x, beside)])
    assert share.max() > 0.9 and (share < 0.05).mean() > 0.3
    f = np.asarray(pendulum.clearness(jax.random.key(0), BATCH, 200))
    inner = (f[:, 5:-1] > 0.01) & (f[:, 5:-1] < 0.99) & (f[:, 6:] > 0.01) & (f[:, 6:] < 0.99)
    assert abs(np.diff(f[:, 5:], axis=1))[inner].max() <= 0.2 / 0.5
    assert 0.05 < (f == 0).mean() < 0.4 and 0.05 < (f == 1).mean() < 0.4


@pytest.mark.parametrize("data, side, size", [("digits", 18, 8), ("mnist", 64, 28)])
def test_digits_move_straight_on_and_turn_back_at_walls(data, side, size):
    """Of one digit, whose places are found by looking for its image."""
    T, n = 30, 4
    images = np.random.default_rng(0).integers(1, 256, (7, size, size)).astype(np.uint8)
    video = np.asarray(bouncing_mnist.videos(jnp.asarray(images), jax.random.key(2), n, T, side, 1))
    walls, speed = side - size, 0.1 * (side - size)
    turns = 0
    for frames in video:
        found = [np.argwhere(frame) for frame in frames]
        corners = np.array([one.min(axis=0) for one in found])
        cut = np.stack([f[r : r + size, c : c + size] for f, (r, c) in zip(frames, corners)])
        assert (cut == cut[0]).all() and any(np.allclose(cut[0], i / 255) for i in images)
        assert all(len(one) == size * size for one in found), "all of it is in the frame"
        moves = np.diff(corners, axis=0)
        free = (
            (corners[1:] > 0) & (corners[1:] < walls) & (corners[:-1] > 0) & (corners[:-1] < walls)
        )
        way = np.array([np.abs(m[f]).mean() for m, f in zip(moves.T, free.T)])
        assert abs(np.hypot(*way) - speed) < 1
        for m, f, v in zip(moves.T, free.T, way):
            assert (abs(np.abs(m[f]) - v) < 1.5).all()
        before, after = moves[:-1], moves[1:]
        turned = before * after < 0
        turns += turned.sum()
        at_wall = (corners[1:-1] < 1) | (corners[1:-1] > walls - 1)
        assert (~turned | at_wall).all(), "it turns back nowhere else"
    assert turns > n


def test_held_out_digits_are_those_of_other_writers():
    task = built("bouncing_mnist", digits=1)
    for part, batch in (("train", next(task.batches(0, 6, 2))),
                        ("test", next(task.validation(6, 2, 1)))):  # fmt: skip
        known = np.stack([e["image"].reshape(-1) for e in prepared("digits").source(part)])
        for frame in np.rint(255 * np.asarray(batch.x)[:, 0]):
            places = np.lib.stride_tricks.sliding_window_view(frame, (8, 8)).reshape(-1, 64)
            assert any((known == one).all(axis=1).any() for one in places), part


def test_the_next_frame_is_the_target():
    task, batch = built("bouncing_mnist"), draw("bouncing_mnist", 8)
    x, y = np.asarray(batch.x), np.asarray(batch.y)
    np.testing.assert_array_equal(x[:, 1:].reshape(BATCH, 7, -1), y[:, :-1])
    same = next(iter(task.validation(4, 8, 1)))
    again = next(iter(task.validation(4, 8, 1)))
    np.testing.assert_array_equal(same.x, again.x)
    assert not np.array_equal(same.x, next(task.batches(0, 4, 8)).x)
    p = np.clip(y.mean(axis=(0, 1)), 1e-4, 1 - 1e-4)
    mean = np.broadcast_to(np.log(p / (1 - p)), y.shape).astype(np.float32)
    loss = float(score(task, mean, batch)["loss"])
    assert abs(loss / task.baseline(8)["loss"] - 1) < 0.05


@pytest.mark.parametrize("size", [8, 28])
def test_digits_of_a_line_stand_side_by_side(size):
    """Against a strip that is painted column by column; all of the law that lays them out."""
    T, L, images = 7 * size, 3, np.random.default_rng(0).integers(1, 256, (9, size, size))
    images = images.astype(np.uint8)
    line = jax.jit(lambda key: digit_lines.layout(key, BATCH, T, L, size, len(images)))
    line = jax.tree.map(np.asarray, line(jax.random.key(0)))
    ends = line.start + line.width
    gap = line.start[:, 1:] - ends[:, :-1]
    last = ends[np.arange(BATCH), line.count - 1]
    assert line.start.min() == 0 and last.max() == T and (gap.min(), gap.max()) == (0, size // 2)
    assert (line.width.min(), line.width.max()) == (size - size // 4, size + size // 2)
    assert (line.top.min(), line.top.max()) == (0, size // 2)
    for drawn, low, many in ((line.count, 1, L), (line.which, 0, len(images))):
        share = np.bincount(drawn.ravel() - low, minlength=many) / drawn.size
        assert len(share) == many
        assert (abs(share - 1 / many) < 5 * (1 / many / drawn.size) ** 0.5).all()
    some = digit_lines.Line(*(v[:20] for v in line))
    painted = np.zeros((20, T, size + size // 2), np.float32)
    for frames, which, count, starts, widths, tops in zip(painted, *some):
        for n in range(count):
            for u in range(widths[n]):
                column = images[which[n]][:, int(u * size / widths[n])]
                frames[starts[n] + u, tops[n] : tops[n] + size] = column / 255
    found = jax.vmap(lambda one: digit_lines.strip(jnp.asarray(images), one, T))(some)
    np.testing.assert_allclose(found, painted, atol=1e-6)


@pytest.mark.thorough
def test_a_line_is_scored_by_its_edits():
    """Of sure, of no and of random answers; the first digit of a line of one is its image."""
    task, batch = built("digit_lines"), draw("digit_lines", 64)
    y = np.asarray(batch.y)
    path = np.zeros((BATCH, 64), int)
    path[:, 1 : 2 * y.shape[1] : 2] = y  # with a blank between
    sure = task.summary(score(task, 60 * np.eye(11, dtype=np.float32)[path], batch))
    assert sure["label_error_rate"] == 0 and sure["loss"] < 1e-6
    expected = task.baseline(64)
    none = task.summary(score(task, np.eye(11, dtype=np.float32)[0 * path], batch))
    assert none["label_error_rate"] == expected["label_error_rate"] == 1
    even = task.summary(score(task, np.zeros((BATCH, 64, 11), np.float32), batch))
    assert abs(float(even["loss"]) / expected["loss"] - 1) < 0.03
    rng = np.random.default_rng(0)
    guessed = task.summary(score(task, rng.normal(size=(BATCH, 64, 11)).astype(np.float32), batch))
    assert guessed["label_error_rate"] > 5, "most frames are a digit too many"
    one = np.flatnonzero((y > 0).sum(axis=1) == 1)[0]
    clear = np.rint(255 * np.asarray(draw("digit_lines", 64, noise=0.0).x)[one]).astype(int)
    seen = [np.trim_zeros(column).tolist() for column in clear[clear.any(axis=1)]]
    known = prepared("digits").source("train")
    alike = set()
    for digit in known:
        columns = [np.trim_zeros(column).tolist() for column in digit["image"].T]
        if all(column in columns for column in seen):
            alike.add(digit["label"])
    assert y[one, 0] - 1 in alike


def test_digits_move_in_the_direction_of_their_class():
    """Corners against the line that they are on; frames against what stands at a corner."""
    y = np.arange(BATCH) % 8
    corners = np.asarray(moving_digits.places(jax.random.key(0), jnp.asarray(y), 8, 12, 16))
    assert corners.min() == 0 and corners.max() == 15
    first = np.bincount(corners[:, 0].ravel(), minlength=16) / corners[:, 0].size
    assert (abs(first - 1 / 16) < 5 * (1 / 16 / corners[:, 0].size) ** 0.5).all()
    moved = (np.diff(corners, axis=1) + 8) % 16 - 8
    way = moved.sum(axis=1)
    speed = np.hypot(*way.T) / 11
    assert speed.min() > 0.8 and speed.max() < 2.2 and abs(speed.mean() - 1.5) < 0.1
    angle = np.arctan2(way[:, 0], way[:, 1]) - 2 * np.pi * y / 8
    assert abs((angle + np.pi) % (2 * np.pi) - np.pi).max() < 0.15
    images = np.random.default_rng(0).integers(1, 256, (3, 8, 8)).astype(np.uint8)
    found = np.asarray(moving_digits.frames(jnp.asarray(images), jnp.asarray(corners[:3])))
    for image, row, places in zip(images, found, corners):
        for frame, (r, c) in zip(row, places):
            expected = np.zeros((16, 16))
            for i, j in np.ndindex(8, 8):
                expected[(r + i) % 16, (c + j) % 16] = image[i, j] / 255
            np.testing.assert_allclose(frame, expected, atol=1e-6)
    batch = draw("moving_digits", 8, directions=8)
    share = np.bincount(batch.y, minlength=8) / BATCH
    assert len(share) == 8 and (abs(share - 1 / 8) < 5 * (7 / 64 / BATCH) ** 0.5).all()
