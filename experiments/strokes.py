"""What a model draws with a pen.

command     python -m experiments.strokes RUN [--out strokes.png] [--temperature 0.3]
hardware    2 CPU cores
time        20 seconds, after `seqjax train handwriting --run RUN` (5 minutes)
expected    a picture: a row of numerals held out, and three rows that the model drew, most of which
            can be read

The model is one of the task `handwriting`. Nothing tells it when to stop: a drawing has as many
steps as the one held out above it.
"""

import argparse
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from seqjax.core.files import save_figure
from seqjax.train.generate import generate
from seqjax.train.loop import load

COLUMNS, ROWS = 12, 3


def main(run: Path, out: Path, temperature: float = 0.3) -> list[np.ndarray]:
    """Draw with the model of a run, into the file `out`. Returns the strokes, true ones first."""
    model, task, *_ = load(run)
    if task.lines is None:
        raise SystemExit(f"{run} is a run of {task.name}: one of handwriting draws")
    (held_out, *_) = task.validation(COLUMNS, task.decides["length"], 1)
    true = [y[mask > 0] for y, mask in zip(held_out.y, held_out.mask)]
    drawn = generate(
        model, [np.zeros((1, 3), np.float32)] * (COLUMNS * ROWS), held_out.y.shape[1],
        key=jax.random.key(0), temperature=temperature,
    )  # fmt: skip
    strokes = [*true, *(one[: len(true[n % COLUMNS])] for n, one in enumerate(drawn))]
    figure, axes = plt.subplots(ROWS + 1, COLUMNS, figsize=(COLUMNS * 0.8, (ROWS + 1) * 0.9))
    for axis, one in zip(axes.flat, strokes):
        for x, down in (line.T for line in task.lines(one)):
            axis.plot(x, -down, color="black", linewidth=1)
        axis.set_aspect("equal", adjustable="datalim")
        axis.set_axis_off()
    figure.suptitle("held out, above; drawn by the model, below")
    figure.tight_layout()
    save_figure(figure, out, dpi=150)
    plt.close(figure)
    print(f"{len(drawn)} drawings in {out}")
    return strokes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="what a model draws with a pen")
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("strokes.png"))
    parser.add_argument("--temperature", type=float, default=0.3)
    given = parser.parse_args()
    main(given.run, given.out, given.temperature)
