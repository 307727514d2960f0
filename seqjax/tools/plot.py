"""`seqjax plot RUN...`: runs together over steps, tokens or seconds."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from seqjax.core.files import check_figure, save_figure, write_atomically
from seqjax.tools.curves import METRIC, Axis, Curve, curves, read_run, summary
from seqjax.tools.screen import print_table


def plot(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")],
    x: Axis = "steps",
    metric: str = METRIC,
    out: Path = Path("plot.png"),
) -> int:
    """Draw a metric of runs together, with the baseline of their task.

    Runs that differ in nothing but the seed are one line, their mean, in a band from the least to
    the largest of them. The legend has what differs between configs.

    Args:
        runs: folders of runs
        x: what they are drawn over
        metric: a name of metrics.jsonl, as validation_accuracy
        out: a picture, .png, .svg, .pdf ..., or .csv for the numbers
    """
    if not runs:
        raise ValueError("give at least one folder of a run: seqjax plot RUN...")
    check_out(out)
    found = curves([read_run(run) for run in runs], metric, x)
    write(found, metric, x, out)
    columns = ("", "runs", "step", f"last {metric}", "sd", "best")
    print_table(f"{metric}, in {out}", columns, summary(found, metric))
    return 0


def check_out(out: Path) -> None:
    """Raise ValueError for a file that `write` cannot make."""
    check_figure(out.with_suffix(".png") if out.suffix == ".csv" else out)


def write(found: Sequence[Curve], metric: str, axis: Axis, out: Path) -> None:
    if out.suffix == ".csv":
        write_atomically(out, table(found, metric))
    else:
        save_figure(picture(found, metric, axis), out, dpi=150)


def table(found: Sequence[Curve], metric: str) -> str:
    """A line for every run and step, as CSV."""
    text = StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("run", "label", "seed", "step", "tokens", "seconds", metric))
    for curve in found:
        for run, values in zip(curve.runs, curve.values, strict=True):
            tokens, seconds = (run.along(axis, curve.steps) for axis in ("tokens", "seconds"))
            for point in zip(curve.steps, tokens, seconds, values, strict=True):
                lines.writerow(
                    (run.folder, curve.label, run.config.train.seed, *map(_plain, point))
                )
    return text.getvalue()


def picture(found: Sequence[Curve], metric: str, axis: Axis) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel=axis, ylabel=metric, title=title(found, metric))
    for n, curve in enumerate(found):
        mean, color = curve.values.mean(axis=0), f"C{n % 10}"
        style = ("-", "--", ":", "-.")[n // 10 % 4]
        axes.plot(curve.x, mean, style, color=color, label=_legend(curve), linewidth=1.4,
                  marker="." if len(mean) < 40 else None)  # fmt: skip
        if len(curve.runs) > 1:
            low, high = curve.values.min(axis=0), curve.values.max(axis=0)
            axes.fill_between(curve.x, low, high, color=color, alpha=0.2, linewidth=0)
    for name, value in baselines(found, metric).items():
        axes.axhline(value, color="0.4", linestyle=(0, (5, 4)), linewidth=1, zorder=0,
                     label=f"{name}, {value:.3g}")  # fmt: skip
    several = any(len(curve.runs) > 1 for curve in found)
    note = "mean, and the band from least to largest, over seeds" if several else None
    axes.legend(edgecolor="none", fontsize=8, title=note, title_fontsize=8)
    if is_positive_and_wide(found):
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure


def is_positive_and_wide(found: Sequence[Curve]) -> bool:
    """Whether the values span two decades: then their axis is logarithmic."""
    values = np.concatenate([curve.values.ravel() for curve in found])
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() > 100 * values.min())


def title(found: Sequence[Curve], metric: str) -> str:
    """Tasks, with the length that is measured where it is not the one trained at."""
    tasks = dict.fromkeys(run.config.task.name for curve in found for run in curve.runs)
    lengths = {(run.config.task.length, run.config.task.evaluation_length)
               for curve in found for run in curve.runs}  # fmt: skip
    text = ", ".join(tasks)
    if metric.startswith("validation_"):
        other = {f"{e}, trained at {n}" for n, e in lengths if e not in (None, n)}
        if other:
            text += f": evaluated at length {'; '.join(sorted(other))}"
    return text


def baselines(found: Sequence[Curve], metric: str) -> dict[str, float]:
    """By name, each of a task at its length."""
    known: dict[float, list[str]] = {}
    for curve in found:
        run = curve.runs[0]
        value = run.baseline(metric)
        if value is not None:
            known.setdefault(round(value, 9), []).append(run.config.task.name)
    tasks = {value: ", ".join(dict.fromkeys(names)) for value, names in known.items()}
    return {f"baseline of {name}": value for value, name in tasks.items()}


def _legend(curve: Curve) -> str:
    return curve.label + (f"  ({len(curve.runs)} seeds)" if len(curve.runs) > 1 else "")


def _plain(value: Any) -> Any:
    return f"{value:.9g}" if isinstance(value, float) else value
