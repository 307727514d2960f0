"""Learning without end: one stream whose task changes, an update at every step, no reset.

command     python -m experiments.lifelong
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-22
time        1 to 2 minutes
expected    squared error (0 predicts 1.0), mean of three seeds; 7 phases of 6000 steps

                                  first quarter of phase   last quarter    held out A after
                                      1     2     6   back       1     6         1     6   back
            rtrl_elementwise       0.27  0.14  0.07   0.09   0.031 0.018      0.02  1.42   0.00
            uoro                   0.71  0.63  0.38   0.46   0.507 0.300      0.47  1.48   0.39
            tbptt 1,1              0.54  0.58  0.73   0.78   0.353 0.663      0.36  1.13   0.65
            tbptt 1,4              0.42  0.39  0.33   0.42   0.319 0.311      0.30  1.30   0.26
            tbptt 1,16             0.27  0.12  0.07   0.09   0.028 0.013      0.02  1.42   0.01
            snap 1, gru            0.78  1.00  0.88   0.82   0.599 0.729      0.51  1.07   0.57
            tbptt 1,16, gru        0.73  0.89  0.74   0.56   0.411 0.551      0.35  1.10   0.36
            online_lru, 2 layers   0.24  0.14  0.08   0.10   0.098 0.021      0.09  1.42   0.01
            tbptt 1,4, 2 layers    0.36  0.26  0.31   0.32   0.222 0.268      0.23  1.21   0.16

The tasks A, B, .., F and A again follow each other without notice: each is a random map of the last
8 inputs to one number, all lags alike. Learned at every step, in windows of one, by one LRU, two of
them or a GRU of 16 units and a readout; Adam at the same rate for all.

What shows: plasticity is a matter of the gradient. Whoever sees the whole of it (RTRL, or a
truncation longer than the lags) learns later tasks faster than the first, since what is shared, a
memory of the last inputs, is there already; truncated to one step, ever more slowly. Two layers by
online_lru's approximation learn as well as one by RTRL, where truncation to 4 steps at the same
depth costs an order of magnitude. Retention nobody has: nothing tells the tasks apart, and after
another one A is worse than predicting 0; on its return it is learned as fast as a new task, not
faster. UORO's variance leaves it behind tbptt(1, 4) at first and beside it later. SnAp-1 of a GRU
stays behind backpropagation through 16 steps of it, and this GRU behind the LRU, however it learns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import words
from seqjax.core.files import save_figure
from seqjax.learn.bptt import tbptt
from seqjax.learn.cell import Cell, as_cell, stack
from seqjax.learn.learner import Learner, squared_error
from seqjax.learn.online_lru import online_lru
from seqjax.learn.rtrl import rtrl_elementwise
from seqjax.learn.snap import snap
from seqjax.learn.uoro import uoro
from seqjax.zoo import make

RUN = Path("runs/lifelong")
INPUTS, WIDTH, LAGS = 2, 16, 8


class Network(NamedTuple):
    """Cells on top of each other: recurrent layers, a readout."""

    cells: tuple[Cell, ...]
    params: tuple[Any, ...]

    @property
    def cell(self) -> Cell:
        return stack(*self.cells)


def network(*layers: str, seed: int, **options) -> Network:
    """WIDTH features, the layers, and one number read out of the gelu of the last."""
    made = [
        as_cell(make(n, WIDTH, rngs=nnx.Rngs(seed + i), **options)) for i, n in enumerate(layers)
    ]
    top = Cell(lambda W: (), lambda W, h, x: (), lambda W, h, x: W @ jax.nn.gelu(x))
    W = jax.random.normal(jax.random.key(seed), (1, WIDTH)) / WIDTH**0.5
    return Network((*(cell for cell, _ in made), top), (*(p for _, p in made), W))


class Contender(NamedTuple):
    layers: tuple[str, ...]
    make: Callable[[Network, jax.Array], Learner]  # network, a few inputs


LRU, TWO, GRU = ("lru",), ("lru", "lru"), ("gru",)
CONTENDERS: dict[str, Contender] = {
    "rtrl_elementwise": Contender(
        LRU, lambda n, xs: rtrl_elementwise(n.cell, squared_error, n.params, xs)
    ),
    "uoro": Contender(LRU, lambda n, xs: uoro(n.cell, squared_error)),
    "tbptt 1,1": Contender(LRU, lambda n, xs: tbptt(n.cell, squared_error, n.params, xs, k2=1)),
    "tbptt 1,4": Contender(LRU, lambda n, xs: tbptt(n.cell, squared_error, n.params, xs, k2=4)),
    "tbptt 1,16": Contender(LRU, lambda n, xs: tbptt(n.cell, squared_error, n.params, xs, k2=16)),
    "snap 1, gru": Contender(GRU, lambda n, xs: snap(n.cell, squared_error, n.params, xs)),
    "tbptt 1,16, gru": Contender(
        GRU, lambda n, xs: tbptt(n.cell, squared_error, n.params, xs, k2=16)
    ),
    "online_lru, 2 layers": Contender(
        TWO, lambda n, xs: online_lru(n.cell, squared_error, n.params, xs)
    ),
    "tbptt 1,4, 2 layers": Contender(
        TWO, lambda n, xs: tbptt(n.cell, squared_error, n.params, xs, k2=4)
    ),
}


def targets(key: jax.Array, xs: jax.Array) -> jax.Array:
    """y [T, 1] of a task: its own random map of the last LAGS inputs, xs [T, INPUTS].

    y_t = sum_d <c_d, x_{t-d}> of variance 1, all lags alike.
    """
    c = jax.random.normal(key, (LAGS, INPUTS))
    c = c / jnp.linalg.norm(c)
    past = jnp.pad(xs, ((LAGS - 1, 0), (0, 0)))
    lagged = jnp.stack([past[LAGS - 1 - d : len(past) - d] for d in range(LAGS)], axis=1)
    return jnp.einsum("tdi,di->t", lagged, c)[:, None]


def stream(key: jax.Array, order: tuple[int, ...], steps: int):
    """xs [T, WIDTH], random signs in a fixed code; ys [T, 1] by `order`, `steps` of each task."""
    xs = jax.random.rademacher(key, (len(order) * steps, INPUTS), float)
    every = jnp.stack([targets(k, xs) for k in jax.random.split(jax.random.key(7), max(order) + 1)])
    task = jnp.repeat(jnp.array(order), steps)
    code = jax.random.normal(jax.random.key(8), (INPUTS, WIDTH)) / INPUTS**0.5
    return xs @ code, jnp.take_along_axis(every, task[None, :, None], axis=0)[0]


class Told(NamedTuple):
    online: jax.Array  # [phases, steps]: loss of every step before its update
    held: jax.Array  # [phases]: loss on a held-out stream of the first task after every phase


def live(
    contender: Contender, order: tuple[int, ...], steps: int, *, seeds: int = 3, rate: float = 3e-3
) -> Told:
    """One life per seed along the tasks of `order`; the losses are squared errors."""
    options = {"hidden": WIDTH, "reset": "after"} if contender.layers == GRU else {}
    nets = [network(*contender.layers, seed=seed, **options) for seed in range(seeds)]
    cell, optimiser = nets[0].cell, optax.adam(rate)
    xs, ys = stream(jax.random.key(0), order, steps)
    learner = contender.make(nets[0], xs[:4])
    asked = stream(jax.random.key(1), (order[0],), 500)

    def loss(params):
        def body(h, now):
            h = cell.step(params, h, now[0])
            return h, 2 * squared_error(cell.readout(params, h, now[0]), now[1])

        return jnp.mean(jax.lax.scan(body, cell.start(params), asked)[1])

    def phase(carry, part):
        def step(carry, now):
            params, moments, state = carry
            window = jax.tree.map(lambda v: v[None], now)
            told, grads, state = learner.grad(params, state, *window)
            updates, moments = optimiser.update(grads, moments, params)
            return (optax.apply_updates(params, updates), moments, state), 2 * told

        carry, losses = jax.lax.scan(step, carry, part)
        return carry, (losses, loss(carry[0]))

    @jax.jit
    @jax.vmap
    def life(params, key):
        start = params, optimiser.init(params), learner.init(params, key)
        cut = jax.tree.map(lambda v: v.reshape(len(order), steps, -1), (xs, ys))
        return jax.lax.scan(phase, start, cut)[1]

    params = jax.tree.map(lambda *p: jnp.stack(p), *(net.params for net in nets))
    return Told(*life(params, jax.random.split(jax.random.key(2), seeds)))


def figure(told: dict[str, Told], order: tuple[int, ...], path: Path) -> None:
    """The running loss along the stream; plasticity and retention over the switches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(10, 6.5), layout="constrained")
    FigureCanvasAgg(fig)
    grid = fig.add_gridspec(2, 2, height_ratios=(1.2, 1))
    running = fig.add_subplot(grid[0, :])
    plastic, kept = fig.add_subplot(grid[1, 0]), fig.add_subplot(grid[1, 1])
    names = [f"{chr(ord('A') + task)}" for task in order]
    phases = np.arange(1, len(order) + 1)
    for name, (online, held) in told.items():
        online, held = np.asarray(online).mean(axis=0), np.asarray(held).mean(axis=0)
        steps, width = online.shape[1], max(1, online.shape[1] // 20)
        means = online[:, : steps // width * width].reshape(-1, width).mean(axis=1)
        style: dict[str, Any] = dict(
            color=f"C{list(told).index(name)}", lw=1.3, ls="--" if "tbptt" in name else "-"
        )
        running.plot(width * np.arange(1, len(means) + 1), means, label=name, **style)
        plastic.plot(phases, online[:, : steps // 4].mean(axis=1), marker="o", ms=3, **style)
        kept.plot(phases, held, marker="o", ms=3, **style)
    for n in range(1, len(order)):
        running.axvline(n * steps, color="0.8", lw=0.8, zorder=0)
    for n, name in enumerate(names):
        running.text((n + 0.5) * steps, 1.25, name, ha="center", color="0.4")
    running.set(
        yscale="log", ylim=(None, 2), xlabel="steps", ylabel="squared error", title="running loss"
    )
    fig.legend(frameon=False, fontsize=8, ncols=5, loc="outside upper center")
    plastic.set(
        yscale="log", title="plasticity: first quarter of each phase", ylabel="squared error"
    )
    kept.set(yscale="log", title=f"retention: task {names[0]}, held out, after each phase")
    for axes in (plastic, kept):
        axes.set_xticks(phases, names)
        axes.set_xlabel("task")
    for axes in (running, plastic, kept):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(fig, path, dpi=150)


def main(order: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 0), steps: int = 6000) -> None:
    last = len(order) - 1  # the first task comes back
    print(
        f"squared error (0 predicts 1.0), mean of three seeds; {len(order)} phases of {steps} steps"
    )
    print(
        f"{'':22}first quarter of phase   last quarter    held out A after\n"
        f"{'':22}{1:5}{2:6}{last:6}{'back':>7}  {1:6}{last:6}  {1:8}{last:6}{'back':>7}"
    )
    told = {}
    for name, contender in CONTENDERS.items():
        began = monotonic()
        told[name] = live(contender, order, steps)
        online, held = (np.asarray(v).mean(axis=0) for v in told[name])
        early = online[:, : steps // 4].mean(axis=1)
        late = online[:, -(steps // 4) :].mean(axis=1)
        print(
            f"{name:22}{early[0]:5.2f}{early[1]:6.2f}{early[last - 1]:6.2f}{early[last]:7.2f}"
            f"  {late[0]:6.3f}{late[last - 1]:6.3f}"
            f"  {held[0]:8.2f}{held[last - 1]:6.2f}{held[last]:7.2f}   {monotonic() - began:.0f} s",
            flush=True,
        )
    figure(told, order, RUN / "stream.png")
    print(f"\n{RUN / 'stream.png'}")


if __name__ == "__main__":
    words()
    main()
