"""What a forecaster expects: intervals of the paths that it draws, over series that come so or not.

command     python -m experiments.intervals RUN [--out intervals.png]
hardware    2 CPU cores
time        20 seconds, after `seqjax train deepar --run RUN`
expected    a picture: six items, the smallest on the left; what was seen, the median of what may
            come, 50 and 90 % of it, and what came

`seqjax eval RUN` prints how many of the numbers that come are in these intervals.
"""

import argparse
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from seqjax.core.files import save_figure
from seqjax.tasks.synthetic.demand import Demand
from seqjax.train.forecast import sample_paths
from seqjax.train.record import read_config
from seqjax.train.trained import load

ITEMS, PATHS = 6, 400


def main(run: Path, out: Path) -> np.ndarray:
    """Draw paths of items that are held out, and their intervals. Returns the paths."""
    model, task, *_ = load(run)
    if not isinstance(task, Demand):
        raise SystemExit(f"{run} is a run of {task.name}: one of demand forecasts by sampling")
    length, horizon = read_config(run).task.length, task.horizon
    (batch,) = task.validation(64, length, 1)
    scale = np.asarray(batch.y)[:, -1, 1]
    order = np.argsort(scale)[:: len(scale) // ITEMS][:ITEMS]
    x, y = np.asarray(batch.x)[order], np.asarray(batch.y)[order, :, 0]
    paths = sample_paths(model, x, scale[order], horizon, paths=PATHS, key=jax.random.key(0))
    low, lower, median, upper, high = np.quantile(
        paths[..., 0], [0.05, 0.25, 0.5, 0.75, 0.95], axis=1
    )
    days = np.arange(length)
    figure, axes = plt.subplots(2, ITEMS // 2, figsize=(4 * ITEMS // 2, 5), sharex=True)
    for n, axis in enumerate(axes.flat):
        come = days[-horizon:]
        axis.fill_between(come, low[n], high[n], color="C0", alpha=0.2, linewidth=0, label="90 %")
        axis.fill_between(come, lower[n], upper[n], color="C0", alpha=0.4, linewidth=0,
                          label="50 %")  # fmt: skip
        axis.plot(come, median[n], color="C0", label="median")
        axis.plot(days, y[n], color="black", marker=".", markersize=3, linewidth=0.7, label="sold")
        axis.axvline(length - horizon - 0.5, color="0.6", linewidth=0.8)
        axis.set_title(f"scale {scale[order[n]]:.3g}", fontsize=9)
    axes.flat[0].legend(fontsize=7, loc="upper left")
    for axis in axes[-1]:
        axis.set_xlabel("day")
    figure.tight_layout()
    save_figure(figure, out, dpi=150)
    plt.close(figure)
    print(f"{PATHS} paths of {ITEMS} items in {out}")
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="what a forecaster expects")
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("intervals.png"))
    given = parser.parse_args()
    main(given.run, given.out)
