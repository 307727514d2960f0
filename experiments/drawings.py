"""What a model draws: images pixel by pixel, and lines with a pen.

command     python -m experiments.drawings RUN [--out drawings.png] [--temperature 1.0]
hardware    2 CPU cores
time        20 seconds, after `seqjax train gen_mnist --run RUN` (2 minutes) or `seqjax train
            handwriting --run RUN` (5 minutes)
expected    a picture: a row of digits held out, and three rows that the model drew; most of these
            can be read, those of a pen at a temperature of 0.3

A model of `gen_mnist` is given 0 first, and then the pixel that it drew before. One of
`handwriting` does not know when to stop: a drawing has as many steps as the one held out above it.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from seqjax.core.files import save_figure
from seqjax.tasks import Task
from seqjax.tasks.images.gen_mnist import PixelTask
from seqjax.train.generate import generate
from seqjax.train.trained import load

COLUMNS, ROWS = 12, 3


def main(run: Path, out: Path, temperature: float = 1.0) -> list[np.ndarray]:
    """Draw with the model of a run, into the file `out`. Returns the drawings, true ones first."""
    model, task, *_ = load(run)
    if not isinstance(task, PixelTask) and task.lines is None:
        raise SystemExit(f"{run} is a run of {task.name}: one of gen_mnist or handwriting draws")
    (held_out,) = task.validation(COLUMNS, task.decides["length"], 1)
    true = [y[mask > 0] for y, mask in zip(held_out.y, held_out.mask)]
    begin = np.zeros((1, *model.inputs.shape), model.inputs.dtype)
    drawn = generate(
        model, [begin] * (COLUMNS * ROWS), held_out.y.shape[1],
        key=jax.random.key(0), temperature=temperature,
    )  # fmt: skip
    found = [*true, *(one[: len(true[n % COLUMNS])] for n, one in enumerate(drawn))]
    figure, axes = plt.subplots(ROWS + 1, COLUMNS, figsize=(COLUMNS * 0.8, (ROWS + 1) * 0.87))
    for axis, one in zip(axes.flat, found):
        draw(axis, task, one)
        axis.set_axis_off()
    figure.suptitle("held out, above; drawn by the model, below")
    figure.tight_layout()
    save_figure(figure, out, dpi=150)
    plt.close(figure)
    print(f"{len(drawn)} drawings in {out}")
    return found


def draw(axis: Axes, task: Task, one: Any) -> None:
    if isinstance(task, PixelTask):
        most = task.spec.outputs.size - 1
        axis.imshow(one.reshape(task.shape) / most, cmap="gray", vmin=0, vmax=1)
        return
    assert task.lines is not None
    for x, down in (line.T for line in task.lines(one)):
        axis.plot(x, -down, color="black", linewidth=1)
    axis.set_aspect("equal", adjustable="datalim")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="what a model draws")
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("drawings.png"))
    parser.add_argument("--temperature", type=float, default=1.0)
    given = parser.parse_args()
    main(given.run, given.out, given.temperature)
