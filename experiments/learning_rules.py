"""Ways to learn side by side: the same cell and data, as many steps, on copy and on text.

command     python -m experiments.learning_rules      (copy, text; default: both)
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-22
time        2 minutes for copy, 4 for text
expected    gradients of RTRL and BPTT: largest relative difference 1e-07

            copy, GRU, nats per symbol (a guess: 1.39), mean of three seeds (seeds)
                               1/4 of the way   at the end
                bptt                    0.725        0.015     (0.007 0.017 0.021)
                rtrl                    0.725        0.015     (0.007 0.016 0.021)
                snap 1                  0.754        0.222     (0.140 0.304 0.222)
                uoro                    0.951        0.827     (0.846 0.830 0.805)
                uoro 16                 0.794        0.592     (0.655 0.586 0.535)
                tbptt 1,3               0.917        0.729     (0.627 0.787 0.773)
                bptt, parts             0.948        0.931     (1.021 0.790 0.981)
                fptt, parts             0.960        0.882     (0.892 0.875 0.878)

            standard library, bits per byte (frequencies alone: 4.53)
                                         GRU                        IndRNN
                               last tenth   held out      last tenth   held out
                bptt                2.483      2.912           3.011      3.259
                tbptt 1,4           2.456      2.921           3.006      3.261
                snap 1              2.567      2.974           3.003      3.255
                rtrl_elementwise                               3.003      3.255
                uoro                3.874      3.890           3.305      3.481
                fptt                2.513      2.938           3.021      3.266

Copy recalls 3 of 4 symbols over 12 steps, every sequence afresh; one update per sequence (Adam), or
one after each of four `parts` of it, over which the gradient does not flow. The text is the
standard library's source, streams without end, an update every 32 bytes, read by a code of random
signs.

What shows: RTRL is BPTT, and their curves lie on each other. SnAp-1 learns what a truncation to 3
steps cannot, more slowly than the exact gradient (arXiv:2006.07232); in an IndRNN it is RTRL. On
text 1500 updates learn hardly more than what 4 bytes of context give: a truncation to 4 is as good
as one to 32, and only UORO's variance tells a rule from another by much.

What did not reproduce at this size: UORO, unbiased, stays behind truncated backpropagation on both
tasks; 16 estimates pass it on copy, at many times the cost. FPTT is better on copy than the same
updates without its regulariser (with alpha 0.1; its published 0.5 is slower), but far from BPTT
over the whole, where the paper (PMLR 139:5189) has it ahead on tasks of long range; on text it is
no better than BPTT over the same windows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import log
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree

from experiments import words
from seqjax.core.common import largest
from seqjax.core.files import save_figure
from seqjax.core.monoid import select
from seqjax.learn.bptt import bptt, tbptt
from seqjax.learn.cell import Cell, as_cell, stack
from seqjax.learn.fptt import fptt
from seqjax.learn.learner import Learner, Loss, batched, cross_entropy, follow
from seqjax.learn.rtrl import rtrl, rtrl_elementwise
from seqjax.learn.snap import snap
from seqjax.learn.uoro import uoro
from seqjax.tasks.synthetic.copy import copy
from seqjax.tasks.texts.char_lm import char_lm
from seqjax.zoo import make

RUN = Path("runs/learning_rules")


def linear(inputs: int, outputs: int, key: jax.Array) -> tuple[Cell, Any]:
    """A readout: a cell without a state, and its parameters."""
    W = jax.random.normal(key, (outputs, inputs)) / inputs**0.5
    cell = Cell(lambda p: (), lambda p, h, x: (), lambda p, h, x: p["W"] @ x + p["b"])
    return cell, {"W": W, "b": jnp.zeros(outputs)}


def network(layer: str, features: int, outputs: int, seed: int, **options) -> tuple[Cell, Any]:
    """A layer with a linear readout."""
    made = make(layer, features, rngs=nnx.Rngs(seed), **options)
    (cell, params), (top, readout) = (
        as_cell(made),
        linear(made.out_features, outputs, jax.random.key(seed)),
    )
    return stack(cell, top), (params, readout)


def restarting(cell: Cell) -> Cell:
    """The cell of inputs (x, first), which forgets the past where `first`, before it reads x.

    To a learner that is a step like any other: nothing of it needs to know of sequences.
    """

    def step(params, h, now):
        x, first = now
        return cell.step(params, select(first, cell.start(params), h), x)

    return Cell(cell.start, step, lambda params, h, now: cell.readout(params, h, now[0]))


class Way(NamedTuple):
    """How to learn, and how often: updates per sequence, after equal parts of it."""

    make: Callable[[Cell, Loss, Any, Any], Learner]
    updates: int = 1


# Cell, loss, parameters and a few inputs. The parts of a sequence of 12 steps are of 3.
COPY: dict[str, Way] = {
    "bptt": Way(lambda cell, loss, params, xs: bptt(cell, loss)),
    "rtrl": Way(lambda cell, loss, params, xs: rtrl(cell, loss, mode="window")),
    "snap 1": Way(lambda cell, loss, params, xs: snap(cell, loss, params, xs)),
    "uoro": Way(lambda cell, loss, params, xs: uoro(cell, loss)),
    "uoro 16": Way(lambda cell, loss, params, xs: uoro(cell, loss, rank=16)),
    "tbptt 1,3": Way(lambda cell, loss, params, xs: tbptt(cell, loss, params, xs, k1=1, k2=3)),
    "bptt, parts": Way(lambda cell, loss, params, xs: bptt(cell, loss), 4),
    "fptt, parts": Way(lambda cell, loss, params, xs: fptt(cell, loss, alpha=0.1), 4),
}
TEXT: dict[str, Way] = {
    "bptt": COPY["bptt"],
    "tbptt 1,4": Way(lambda cell, loss, params, xs: tbptt(cell, loss, params, xs, k1=1, k2=4)),
    "snap 1": COPY["snap 1"],
    "uoro": COPY["uoro"],
    "fptt": Way(lambda cell, loss, params, xs: fptt(cell, loss, alpha=0.1)),
}
ELEMENTWISE = Way(lambda cell, loss, params, xs: rtrl_elementwise(cell, loss, params, xs))


def first(xs):
    return jax.tree.map(lambda x: x[0], xs)


def learn(learner: Learner, params, xs, ys, key, *, rate: float):
    """Parameters after the stream xs, ys [windows, batch, T, ...], and the losses [windows]."""
    many = batched(learner, jax.tree.leaves(xs)[0].shape[1])
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    start = params, optimiser.init(params), many.init(params, key)
    told = follow(many, optimiser, *start, xs, ys)
    return told.params, told.losses


# Copy: sequences that begin afresh, several seeds.

SYMBOLS, MEMORISED, LENGTH = 4, 3, 12


def sequences(key: jax.Array, count: int, batch: int, parts: int):
    """(x, first), y of `count` batches of copy sequences, each cut into parts; y is -1 if blank."""
    task = copy(symbols=SYMBOLS, memorised=MEMORISED)
    x, y, *_ = jax.vmap(lambda key: task.sample(key, batch, LENGTH))(jax.random.split(key, count))
    begins = jnp.broadcast_to(jnp.arange(LENGTH) == 0, x.shape)
    x = jax.nn.one_hot(x, SYMBOLS + 2)

    def cut(v):
        v = v.reshape(count, batch, parts, LENGTH // parts, *v.shape[3:])
        return jnp.swapaxes(v, 1, 2).reshape(-1, batch, LENGTH // parts, *v.shape[4:])

    return jax.tree.map(cut, ((x, begins), jnp.where(y == SYMBOLS, -1, y)))


def recall_loss(y, target):
    """Nats per symbol to recall."""
    return cross_entropy(y, target) / MEMORISED


def copying(
    way: Way, *, updates: int, seeds: int = 3, hidden: int = 16, batch: int = 16, rate: float = 1e-2
) -> jax.Array:
    """Losses [seeds, sequences] of a GRU on copy."""
    made = [
        network("gru", SYMBOLS + 2, SYMBOLS + 1, seed, hidden=hidden, reset="after")
        for seed in range(seeds)
    ]
    cell, params = (
        restarting(made[0][0]),
        jax.tree.map(lambda *p: jnp.stack(p), *(p for _, p in made)),
    )
    like, _ = jax.tree.map(lambda v: v[0, 0], sequences(jax.random.key(0), 1, 1, 1))
    learner = way.make(cell, recall_loss, made[0][1], like)

    @jax.jit
    @jax.vmap
    def run(params, key):
        data, draw = jax.random.split(key)
        xs, ys = sequences(data, updates, batch, way.updates)
        losses = learn(learner, params, xs, ys, draw, rate=rate)[1]
        return losses.reshape(updates, way.updates).sum(axis=1)

    return run(params, jax.random.split(jax.random.key(1), seeds))


def exactness(*, batch: int = 4) -> float:
    """Largest relative difference of the gradients of RTRL and of BPTT, over the parameters."""
    cell, params = network("gru", SYMBOLS + 2, SYMBOLS + 1, 0, hidden=16, reset="after")
    cell = restarting(cell)
    xs, ys = sequences(jax.random.key(2), 1, batch, 1)

    @partial(jax.jit, static_argnums=0)
    def gradient(learner, params):
        many = batched(learner, batch)
        return ravel_pytree(many.grad(params, many.init(params), *first((xs, ys)))[1])[0]

    exact = gradient(bptt(cell, recall_loss), params)
    told = (gradient(rtrl(cell, recall_loss, mode=m), params) for m in ("online", "scan", "window"))
    errors = [largest(jnp.abs(g - exact)) / largest(jnp.abs(exact)) for g in told]
    return float(largest(jnp.stack(errors)))


# Text: bytes of a stream without end, one seed.

BYTES, CODE, STEPS = 256, 32, 32


def modelling(
    layer: str,
    way: Way,
    text,
    *,
    updates: int,
    hidden: int = 64,
    batch: int = 8,
    rate: float = 3e-3,
    held_out: int = 64,
) -> tuple[np.ndarray, float]:
    """Bits per byte: of every window while it learns, and of held-out text afterwards.

    Bytes are read by a code of random signs that nothing learns.
    """
    code = jax.random.rademacher(jax.random.key(3), (BYTES, CODE), float)
    options = {"reset": "after"} if layer == "gru" else {"activation": "tanh"}
    cell, params = network(layer, CODE, BYTES, 0, hidden=hidden, **options)

    def loss(y, target):
        return cross_entropy(y, target) / (STEPS * log(2))

    def stacked(batches, count):
        windows = [next(batches) for _ in range(count)]
        return tuple(jnp.stack([getattr(w, name) for w in windows]) for name in ("x", "y"))

    x, y = stacked(text.batches(0, batch, STEPS), updates)
    learner = way.make(cell, loss, params, code[x[0, 0]])
    step = jax.jit(partial(learn, learner, rate=rate))
    params, losses = step(params, code[x], y, jax.random.key(0))
    x, y = stacked(text.validation(32, STEPS), held_out)
    judge = batched(bptt(cell, loss), 32)
    never = optax.set_to_zero()
    told = jax.jit(partial(follow, judge, never))(
        params, never.init(params), judge.init(params), code[x], y
    )
    return np.asarray(losses), float(jnp.mean(told.losses))


def smooth(values, width: int):
    """Means over `width` windows in a row, and where they end."""
    values = np.asarray(values)
    count = values.shape[-1] // width
    means = values[..., : count * width].reshape(*values.shape[:-1], count, width).mean(axis=-1)
    return width * np.arange(1, count + 1), means


def figure(panels: dict[str, dict[str, np.ndarray]], level: dict[str, float], path: Path) -> None:
    """Learning curves: a panel per task, a line per way (mean of the seeds)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(5 * len(panels), 3.8), layout="constrained")
    FigureCanvasAgg(fig)
    for axes, (title, curves) in zip(
        fig.subplots(1, len(panels), squeeze=False)[0], panels.items()
    ):
        names = list(dict.fromkeys([*COPY, *TEXT, *curves]))
        for name, values in curves.items():
            at, means = smooth(values, max(1, values.shape[-1] // 60))
            style: dict[str, Any] = dict(lw=3, alpha=0.35) if name == "bptt" else dict(lw=1.2)
            axes.plot(
                at, means.mean(axis=0), color=f"C{names.index(name) % 10}", label=name, **style
            )
        axes.axhline(level[title], color="0.6", lw=0.8, ls=":", label="a guess")
        axes.set(title=title, xlabel="updates of bptt", ylim=(None, level[title] * 1.15))
        axes.legend(frameon=False, fontsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(fig, path, dpi=150)


def run_copy(updates: int = 1000) -> tuple[dict[str, np.ndarray], float]:
    print(f"gradients of RTRL and BPTT: largest relative difference {exactness():.0e}\n")
    chance = log(SYMBOLS)
    print(f"copy, nats per symbol (a guess: {chance:.2f}), mean of three seeds")
    print("               1/4 of the way   at the end   (seeds)")
    curves = {}
    for name, way in COPY.items():
        began = monotonic()
        curves[name] = losses = np.asarray(copying(way, updates=updates))
        quarter = losses[:, updates // 5 : updates * 3 // 10].mean()
        seeds = losses[:, -updates // 20 :].mean(axis=1)
        told = " ".join(f"{s:.3f}" for s in seeds)
        took = monotonic() - began
        print(
            f"{name:14s}{quarter:12.3f}{seeds.mean():15.3f}     ({told})   {took:.0f} s", flush=True
        )
    return curves, chance


def run_text(updates: int = 1500) -> dict[str, tuple[dict[str, np.ndarray], float]]:
    text = char_lm(order="streams")
    guess = text.baseline(STEPS)["bits"]
    print(f"\nstandard library, bits per byte (frequencies alone: {guess:.2f})")
    print("                        last tenth   held out")
    told = {}
    for layer, ways in (("gru", TEXT), ("indrnn", {**TEXT, "rtrl_elementwise": ELEMENTWISE})):
        curves = {}
        for name, way in ways.items():
            began = monotonic()
            losses, held_out = modelling(layer, way, text, updates=updates)
            curves[name] = losses[None]
            last = losses[-updates // 10 :].mean()
            took = monotonic() - began
            print(f"{layer:7s}{name:16s}{last:10.3f}{held_out:11.3f}   {took:.0f} s", flush=True)
        told[f"standard library, {layer}: bits per byte"] = curves, guess
    return told


def main(names: list[str]) -> None:
    told: dict[str, Any] = {}
    if "copy" in names:
        told["copy, GRU: nats per symbol"] = run_copy()
    if "text" in names:
        told |= run_text()
    curves, levels = ({k: v[i] for k, v in told.items()} for i in (0, 1))
    figure(curves, levels, RUN / "curves.png")
    print(f"\n{RUN / 'curves.png'}")


if __name__ == "__main__":
    main(words("task", ("copy", "text")) or ["copy", "text"])
