"""Images that a model writes pixel by pixel.

command     python -m experiments.pixels RUN [--out pixels.png] [--temperature 1.0]
hardware    2 CPU cores
time        20 seconds, after `seqjax train gen_mnist --run RUN` (2 minutes)
expected    a picture: a row of digits held out, and three rows that the model drew; most of these
            can be read

The model is one of the task `gen_mnist`. Its first input is 0, each of the others the pixel that it
drew before: `seqjax.train.generate`.
"""

import argparse
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from seqjax.core.files import save_figure
from seqjax.tasks.images.gen_mnist import PixelTask
from seqjax.train.generate import generate
from seqjax.train.loop import load

COLUMNS, ROWS = 12, 3


def main(run: Path, out: Path, temperature: float = 1.0) -> np.ndarray:
    """Draw images with the model of a run, into the file `out`. Returns them, true ones first."""
    model, task, *_ = load(run)
    if not isinstance(task, PixelTask):
        raise SystemExit(f"{run} is a run of {task.name}: one of gen_mnist draws images")
    steps = int(np.prod(task.shape))
    true = next(task.validation(COLUMNS, steps)).y
    drawn = generate(
        model, [np.zeros(1, np.int32)] * (COLUMNS * ROWS), steps,
        key=jax.random.key(0), temperature=temperature,
    )  # fmt: skip
    images = np.concatenate([true, drawn]).reshape(-1, *task.shape) / (model.outputs.size - 1)
    figure, axes = plt.subplots(ROWS + 1, COLUMNS, figsize=(COLUMNS * 0.8, (ROWS + 1) * 0.85))
    for axis, image in zip(axes.flat, images):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_axis_off()
    figure.suptitle("held out, above; drawn by the model, below")
    figure.tight_layout()
    save_figure(figure, out, dpi=150)
    plt.close(figure)
    print(f"{len(drawn)} images in {out}")
    return images


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="images that a model draws")
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("pixels.png"))
    parser.add_argument("--temperature", type=float, default=1.0)
    given = parser.parse_args()
    main(given.run, given.out, given.temperature)
