"""A sample of a task as text, to be checked by eye: what `seqjax show TASK` prints.

Steps go from left to right, those of the input above those of the target. A dot stands where no
target counts, padding is left out, and numbers have two digits. Frames are drawn with characters,
the darker the smaller the number; a character is as high as two are wide. Of a task of strokes the
lines are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import jax
import numpy as np

from seqjax.tasks import Batch, Task

WIDTH = 92  # characters of a line
ROWS = 2  # sequences
MOST = 400  # steps of a sequence
FRAMES, ASIDE = 4, 3  # frames of a sequence, and characters between them
LARGEST = 8  # numbers of a step that are written rather than drawn
PAGE = 40  # characters across a drawing
IMAGE = 196  # steps of one number, as many as the pixels of a square, are drawn as one
SHADES = " .:-=+*#%@"

Row = tuple[str, list[str]]  # a name, and a cell for each step


def sample_lines(task: Task, length: int) -> list[str]:
    """The first sequences of the first training batch, or what the task has in their place."""
    if lines := task.example():
        return list(lines)
    batch = next(task.batches(0, ROWS, length))
    first = task.spec.inputs.pair[1]
    frames = len(first.shape) == 2 or len(first.shape) == 1 and first.shape[0] > LARGEST
    return [
        line
        for n in range(1 if frames else ROWS)
        for line in (*_sequence(task, jax.tree.map(lambda v, n=n: np.asarray(v)[n], batch)), "")
    ]


def _sequence(task: Task, one: Batch) -> list[str]:
    steps = np.ndim(one.mask) == 1
    if task.lines:
        there = slice(None) if one.present is None else one.present
        return _pen(task.lines(one.y[there]))
    shown: list[Row] = []
    lines: list[str] = []
    for path, x in jax.tree.leaves_with_path(one.x):
        name = f"x{jax.tree_util.keystr(path)}"
        if x.dtype == bool:  # which steps of a source are padding
            continue
        if x.ndim > 2 or x.ndim == 2 and x.shape[1] > LARGEST:
            lines += _frames(name, x)
        elif x.shape[1:] == (1,) and len(x) >= IMAGE and isqrt(len(x)) ** 2 == len(x):
            lines += _frames(f"{name}, as rows of an image,", x.T)
        else:
            shown += _cells(name, x, task.tokens)
    if one.dt is not None:
        shown += _cells("dt", one.dt, ())
    for path, y in jax.tree.leaves_with_path(one.y):
        name = f"y{jax.tree_util.keystr(path)}"
        if steps and (y.ndim > 2 or y.ndim == 2 and y.shape[1] > LARGEST):
            lines += _frames(name, y)
        elif steps:
            shown += [
                (row, [cell if due else "." for cell, due in zip(cells, one.mask)])
                for row, cells in _cells(name, y, task.classes)
            ]
        else:
            words = [cell for _, cells in _cells(name, np.atleast_1d(y), task.classes)
                     for cell in cells]  # fmt: skip
            lines.append(f"{name:5}{' '.join(words)}")
    there = np.ones(1, bool) if one.present is None else one.present
    count = int(np.flatnonzero(there).max(initial=0)) + 1 if one.present is not None else None
    wrapped = _wrapped([(row, cells[: min(count or MOST, MOST)]) for row, cells in shown])
    return wrapped + lines


def _cells(name: str, v: np.ndarray, words: Sequence[str]) -> list[Row]:
    """A row of [T]; of [T, D] one for each number."""
    if v.ndim == 2:
        return [row for d in range(v.shape[1]) for row in _cells(f"{name}{d + 1}", v[:, d], words)]
    if not np.issubdtype(v.dtype, np.integer):
        return [(name, [f"{value:.2f}" for value in v])]
    return [(name, [str(words[value] if words else value) for value in v])]


def _wrapped(rows: list[Row]) -> list[str]:
    """Rows of cells, one below the other, broken where a line is full."""
    if not rows:
        return []
    width = max(len(cell) for _, cells in rows for cell in cells) + 1
    margin = max(4, *(len(name) + 1 for name, _ in rows))
    fit, steps = max(1, (WIDTH - margin) // width), max(len(cells) for _, cells in rows)
    lines = []
    for start in range(0, steps, fit):
        lines += [
            f"{name:{margin}}{''.join(f'{cell:>{width}}' for cell in cells[start : start + fit])}"
            for name, cells in rows
            if len(cells) > start
        ]
        lines += [""] if len(rows) > 1 and start + fit < steps else []
    return lines


def _frames(name: str, x: np.ndarray) -> list[str]:
    """Frames of [T, H, W], or of the numbers of vectors as squares, evenly spread over time."""
    if x.ndim == 2 and LARGEST < x.shape[1] <= WIDTH and int(x.shape[1] ** 0.5) ** 2 != x.shape[1]:
        steps = x[: WIDTH if len(x) > WIDTH else None].T
        head = f"{name}, {len(steps)} numbers a step, from {x.min():.3g} to {x.max():.3g}"
        return [head, *_drawn((steps - x.min()) / max(np.ptp(x), 1e-30))]
    if x.ndim == 2:
        side = int(x.shape[1] ** 0.5)
        x = x.reshape(len(x), *((side, side) if side**2 == x.shape[1] else (1, -1)))
    count = max(1, min(FRAMES, len(x), (WIDTH + ASIDE) // (x.shape[2] + ASIDE)))
    places = np.linspace(0, len(x) - 1, count).astype(int)
    low, high = x.min(), x.max()
    level = (x[places] - low) / max(high - low, 1e-30)
    drawn = [_drawn(frame) for frame in level]
    steps = "" if len(x) == 1 else f" of the steps {', '.join(map(str, places))},"
    heads = f"{name}{steps} from {low:.3g} to {high:.3g}"
    return [heads, *((" " * ASIDE).join(line) for line in zip(*drawn))]


def _pen(lines: Sequence[np.ndarray]) -> list[str]:
    """What a pen drew, `PAGE` characters wide at most and half as many high."""
    points = np.concatenate(lines)
    low, size = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-30)
    scale = (PAGE - 1) / size.max()
    page = np.full(np.ceil((size * scale)[::-1] / (2, 1)).astype(int) + 1, " ")
    for line in (scale * (line - low) for line in lines):
        pace = np.linspace(0, len(line) - 1, 2 * PAGE * len(line))
        x, y = (np.interp(pace, np.arange(len(line)), v) for v in line.T)
        page[np.rint(y / 2).astype(int), np.rint(x).astype(int)] = "#"
    return ["".join(row).rstrip() for row in page]


def _drawn(frame: np.ndarray) -> list[str]:
    """A line for two rows of pixels [H, W] in [0, 1]."""
    pairs = np.pad(frame, ((0, len(frame) % 2), (0, 0)), mode="edge")
    pairs = pairs.reshape(-1, 2, frame.shape[1]).mean(axis=1)
    shades: Any = np.array(list(SHADES))
    return ["".join(row) for row in shades[np.rint(pairs * (len(SHADES) - 1)).astype(int)]]
