"""`seqjax learners`: how far each way to learn is from the exact gradient, and what it costs.

Every learner meets every recurrence, one layer with a linear readout, on one stream of T random
steps with random targets. Shown are the cosine with the gradient of autodiff through the whole
stream and the relative error |g - g*| / |g*|, the time per step and the memory: bytes of the
learner's state and of what its compiled program needs beside it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree

from seqjax.core.files import check_figure, save_figure
from seqjax.core.ranges import Range
from seqjax.learn import LEARNERS, squared_error
from seqjax.learn.bptt import bptt
from seqjax.learn.cell import Cell, as_cell, stack
from seqjax.stacks.config import parse_pattern
from seqjax.tools.screen import announce, print_json, print_table
from seqjax.train.record import environment
from seqjax.zoo import make

FEATURES = 4
RECURRENCES: dict[str, dict[str, Any]] = {
    "elman": dict(hidden=16),
    "gru": dict(hidden=16),
    "lstm": dict(hidden=16),
    "indrnn": dict(hidden=16),
    "lru": dict(state=8),
    "gated_deltanet": dict(heads=1, key_size=4, value_size=4, conv=2),
}


NOT_HERE = "takes element-wise recurrences", "needs a state with a field"


class Network(NamedTuple):
    """A layer with a linear readout on top; a stream and its gradient."""

    cell: Cell
    params: Any
    xs: jax.Array
    ys: jax.Array
    exact: jax.Array  # gradient [P] by autodiff through the whole stream


# As `seqjax train --learner` takes them: rows of LEARNERS, with options.
WAYS = (
    "bptt", "bptt chunks=(8,)", "tbptt k1=1 k2=8", "tbptt k1=8 k2=8",
    "rtrl", "rtrl mode=scan", "rtrl mode=window", "rtrl_sparse", "rtrl_elementwise",
    "online_lru", "online_lru mode=scan", "snap", "snap n=2", "eprop", "uoro", "uoro rank=16",
    "fptt", "truncated_lstm_1997", "predictive_coding", "predictive_coding iterations=8",
    "lifted_penalty weight=100", "lifted_admm", "lifted_bcd weight=100", "local_propagation",
)  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """One line of the table."""

    learner: str
    recurrence: str
    cosine: float
    error: float  # |g - g*| / |g*|
    microseconds: float  # per step
    state: int  # bytes of the learner's state
    temporary: int  # bytes its program needs beside it


def network(name: str, steps: int) -> Network:
    """A layer with a readout of 2 numbers, its inputs and targets [steps, 2]."""
    layer = make(name, FEATURES, rngs=nnx.Rngs(0), **RECURRENCES[name])
    cell, params = as_cell(layer)
    keys = jax.random.split(jax.random.key(1), 3)
    W = jax.random.normal(keys[0], (2, layer.out_features)) / layer.out_features**0.5
    top = Cell(lambda W: (), lambda W, h, x: (), lambda W, h, x: W @ x)
    xs = jax.random.normal(keys[1], (steps, FEATURES))
    ys = jax.random.normal(keys[2], (steps, 2))
    both, params = stack(cell, top), (params, W)
    whole = bptt(both, squared_error)
    exact = jax.jit(whole.grad)(params, whole.init(params), xs, ys)[1]
    return Network(both, params, xs, ys, ravel_pytree(exact)[0])


def measure(learner: str, recurrence: str, net: Network) -> Agreement:
    """One learner on one network, beside autodiff through the whole stream."""
    (way,) = parse_pattern(learner.split())
    made = LEARNERS[way.name].make(net.cell, squared_error, net.params, net.xs, **way.options)
    state = made.init(net.params, jax.random.key(0))
    program = jax.jit(made.grad).lower(net.params, state, net.xs, net.ys).compile()
    grads = ravel_pytree(jax.block_until_ready(program(net.params, state, net.xs, net.ys)[1]))[0]
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(program(net.params, state, net.xs, net.ys))
        best = min(best, time.perf_counter() - began)
    sizes = jnp.linalg.norm(grads) * jnp.linalg.norm(net.exact)
    temporary = program.memory_analysis()
    return Agreement(
        learner,
        recurrence,
        float(grads @ net.exact / jnp.maximum(sizes, 1e-30)),
        float(jnp.linalg.norm(grads - net.exact) / jnp.linalg.norm(net.exact)),
        1e6 * best / len(net.xs),
        sum(leaf.nbytes for leaf in jax.tree.leaves(state) if hasattr(leaf, "nbytes")),
        0 if temporary is None else int(temporary.temp_size_in_bytes),
    )


def agreement(
    steps: Annotated[int, Range(1, 10**6)] = 64, figure: Path | None = None, json: bool = False
) -> int:
    """Cosine and relative error of every learner's gradient against the exact one, and its cost.

    Args:
        steps: length of the stream.
        figure: write the table as a figure there, too.
        json: print JSON.
    """
    if figure:
        check_figure(figure)
    networks = {name: network(name, steps) for name in RECURRENCES}
    work = [(recurrence, learner) for recurrence in RECURRENCES for learner in WAYS]
    rows = []
    for recurrence, learner in announce(work, "learners"):
        try:
            rows.append(measure(learner, recurrence, networks[recurrence]))
        except ValueError as error:  # not for this recurrence, by its message
            if not any(reason in str(error) for reason in NOT_HERE):
                raise
    if figure:
        plot(rows, figure)
    if json:
        print_json({"environment": environment(), "rows": [asdict(row) for row in rows]})
        return 0
    for recurrence in RECURRENCES:
        print_table(
            recurrence,
            ("learner", "cosine", "error", "us/step", "state kB", "temporary kB"),
            [
                (row.learner, f"{row.cosine:.4f}", f"{row.error:.1e}", f"{row.microseconds:.1f}",
                 f"{row.state / 1e3:.1f}", f"{row.temporary / 1e3:.1f}")
                for row in rows if row.recurrence == recurrence
            ],
        )  # fmt: skip
    return 0


def plot(rows: list[Agreement], path: Path) -> None:
    """Three panels, learners down and recurrences across: relative error, time and memory."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {row.learner for row in rows}
    learners = [name for name in WAYS if name in shown]
    recurrences = list(dict.fromkeys(row.recurrence for row in rows))
    figure = Figure(figsize=(11, 0.32 * len(learners) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = {
        "relative error of the gradient": lambda row: max(row.error, 1e-8),
        "µs per step": lambda row: row.microseconds,
        "memory, kB": lambda row: (row.state + row.temporary) / 1e3,
    }
    for axes, (title, value) in zip(
        figure.subplots(1, 3, sharey=True), panels.items(), strict=True
    ):
        grid = np.full((len(learners), len(recurrences)), np.nan)
        for row in rows:
            place = learners.index(row.learner), recurrences.index(row.recurrence)
            grid[place] = value(row)
            number = value(row)
            label = f"{number:.0f}" if number >= 10 else f"{number:.2g}"
            label = "exact" if "error" in title and number < 1e-5 else label
            axes.text(place[1], place[0], label, ha="center", va="center", fontsize=8)
        axes.imshow(np.log(grid), cmap="YlOrRd", aspect="auto", alpha=0.6)
        axes.set_xticks(range(len(recurrences)), recurrences, rotation=20, fontsize=8)
        axes.set_yticks(range(len(learners)), learners, fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    save_figure(figure, path, dpi=150)
