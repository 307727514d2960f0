"""Pictures of rows: `seqjax show NAME --figure FILE`.

Of a layer with drawn weights, as its paper has it, or at the smallest options of its row if its
state were larger than what can be drawn:

    what outputs see    |dy_t/dx_s v_s| for a random direction v_s, of each output its largest
    impulse response    |dy_k/dx_0 v|, in the mean over inputs: how long a layer remembers
    eigenvalues         of J = dh_t/dh_{t-1}, where a random input has led
    |J|                 which parts of a state move which: diagonal, blocks, a shift, or all

Matrices that start at zero, after which nothing would be seen (RWKV's outputs), are drawn too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from textwrap import fill
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import seqjax
from seqjax import ops
from seqjax.nn import Layer
from seqjax.recipes import RECIPES
from seqjax.tasks import TASKS, Task, make as make_task
from seqjax.tools.anatomy import costs_of
from seqjax.tools.explain import shape_of
from seqjax.tools.selfcheck import example
from seqjax.tools.tables import Kind
from seqjax.train.config import TaskConfig
from seqjax.zoo import LAYERS, make

FEATURES, SEEN, STEPS, EXAMPLES = 16, 24, 128, 8
LARGEST = 800  # floats of a state whose J is drawn
ROWS = 8  # of a batch


def layer_picture(name: str, options: Mapping[str, Any]) -> Figure:
    layer, shown = small(name, options)
    graph, arrays = nnx.split(awake(layer))

    def run(x: jax.Array, h: Any = None) -> Any:
        return nnx.merge(graph, arrays)(x, h)

    title = f"{name}: {LAYERS[name].title}; {layer.features} features{shown}"
    figure = _figure(13, 3.4, title)
    seen, response, eigenvalues, moved = figure.subplots(1, 4)
    x = jax.random.normal(jax.random.key(0), (1, SEEN, layer.features))
    _matrix(seen, _seen(lambda x: run(x)[0][0], x, axis=1), "what outputs see", "input", "output")
    _response(response, run, layer.features)
    J = transition(run, layer.features)
    if J is None:
        for axes, title in ((eigenvalues, "eigenvalues of J"), (moved, "|J|")):
            _empty(axes, title, f"no state of 1 to {LARGEST} floats")
        return figure
    z: Any = np.linalg.eigvals(J)
    turn: Any = np.exp(1j * np.linspace(0, 2 * np.pi, 200))
    eigenvalues.plot(turn.real, turn.imag, color="0.8", linewidth=0.8)
    eigenvalues.plot(z.real, z.imag, ".", markersize=5, alpha=0.7)
    edge = max(1.2, 1.1 * float(np.abs(z).max(initial=0)))
    eigenvalues.set(aspect="equal", xlim=(-edge, edge), ylim=(-edge, edge), xlabel="Re",
                    ylabel="Im", title="eigenvalues of J")  # fmt: skip
    _matrix(moved, np.abs(J), f"|J|, {len(J)} floats", "state before", "state after")
    return figure


def small(name: str, options: Mapping[str, Any]) -> tuple[Layer, str]:
    """A layer whose state can be drawn, and which options it has beside the paper's."""
    smallest = {**LAYERS[name].smoke, **options}
    try:
        layer = shape_of(name, FEATURES, **options)
        if costs_of(layer, "").state_bytes <= 4 * LARGEST:
            return make(name, FEATURES, **options), "".join(map(_option, options.items()))
    except ValueError:  # the features cannot be divided by its heads
        pass
    return make(name, 4, **smallest), "".join(map(_option, smallest.items()))


def awake(layer: Layer) -> Layer:
    """The layer without a matrix of zeros."""
    graph, arrays, rest = nnx.split(layer, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(arrays)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    leaves = [
        leaf if leaf.ndim < 2 or jnp.any(leaf) else
        (jax.random.normal(key, leaf.shape) / leaf.shape[-2] ** 0.5).astype(leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ]  # fmt: skip
    return nnx.merge(graph, jax.tree.unflatten(tree, leaves), rest)


def _option(pair: tuple[str, Any]) -> str:
    name, value = pair
    return f", {name}={value!r}"


def transition(run: Callable[..., Any], features: int, seen: int = 8) -> np.ndarray | None:
    """dh_t/dh_{t-1} [n, n] after `seen` random steps, complex numbers as pairs; None without a
    state, or of one of more than LARGEST floats."""
    x = jax.random.normal(jax.random.key(2), (1, seen + 1, features))
    moving, put_back = as_reals(jax.jit(lambda x: run(x)[1])(x[:, :-1]))
    if not 1 <= moving.size <= LARGEST:
        return None
    step = jax.jacfwd(lambda moving: as_reals(run(x[:, -1:], put_back(moving))[1])[0])
    return np.asarray(jax.jit(step)(moving))


def as_reals(h: Any) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """The floats of a state as one vector, and the way back; counters stay as they are."""
    leaves, tree = jax.tree.flatten(h)
    inexact = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    pairs = [
        jnp.stack([leaves[i].real, leaves[i].imag]) if jnp.iscomplexobj(leaves[i]) else leaves[i]
        for i in inexact
    ]
    flat, unravel = ravel_pytree(pairs)

    def put_back(flat: jax.Array) -> Any:
        new = list(leaves)
        for i, v in zip(inexact, unravel(flat), strict=True):
            new[i] = jax.lax.complex(v[0], v[1]) if jnp.iscomplexobj(leaves[i]) else v
        return jax.tree.unflatten(tree, new)

    return flat, put_back


def op_picture(name: str, _: Mapping[str, Any]) -> Figure:
    """What outputs see, by all arrays that have a time axis."""
    op = ops.OPS[name]
    spec = op.specs[0]
    arrays, options = example(op, replace(spec, sizes={**spec.sizes, "B": 1, "T": SEEN}))
    arrays = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32) if v.dtype.kind == "f"
                          else jnp.asarray(v), arrays)  # fmt: skip
    timed = {name: v for name, v in arrays.items() if getattr(v, "shape", ())[1:2] == (SEEN,)
             and v.dtype == jnp.float32}  # fmt: skip

    def outputs(timed: Any) -> jax.Array:
        return getattr(seqjax, name)(**{**arrays, **timed}, **options)[0][0]

    figure = _figure(4.4, 4, f"{name}: what outputs see")
    _matrix(figure.subplots(), _seen(outputs, timed, axis=1),
            f"all of {', '.join(timed)}", "input", "output")  # fmt: skip
    return figure


def task_picture(name: str, options: Mapping[str, Any]) -> Figure:
    entry = TASKS[name]
    task = entry.make(**{**entry.smoke, **options})
    return batch_picture(task, entry.length or task.decides.get("length", TaskConfig.length))


def recipe_picture(name: str, _: Mapping[str, Any]) -> Figure:
    c = RECIPES[name].task
    task = make_task(c.name, **c.options)
    decided = task.decides.get("length", c.length) if c.length == TaskConfig.length else c.length
    return batch_picture(task, decided)


def batch_picture(task: Task, length: int) -> Figure:
    """The first sequences of a batch: inputs above, targets below, blank where none counts."""
    batch = next(task.batches(0, ROWS, length))
    mask = np.asarray(batch.mask) > 0
    panels = {f"x{jax.tree_util.keystr(path)}": np.asarray(leaf)
              for path, leaf in jax.tree.leaves_with_path(batch.x)}  # fmt: skip
    for path, leaf in jax.tree.leaves_with_path(batch.y):
        y = np.asarray(leaf, np.float64)
        hidden = mask.reshape(mask.shape + (1,) * (y.ndim - mask.ndim))
        panels[f"y{jax.tree_util.keystr(path)}"] = np.where(hidden, y, np.nan)
    title = f"{task.name}: {task.spec.inputs} -> {task.spec.outputs}"
    if task.lines:
        figure = _figure(12, 2.2, title)
        for axes, y, counts in zip(figure.subplots(1, ROWS), np.asarray(batch.y), mask):
            for x, down in (line.T for line in task.lines(y[counts])):
                axes.plot(x, -down, color="black", linewidth=1)
            axes.set_aspect("equal", adjustable="datalim")
            axes.set_axis_off()
        return figure
    figure = _figure(9, 0.6 + 2.1 * len(panels), title)
    for axes, (name, v) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0],
                               panels.items(), strict=True):  # fmt: skip
        _batch(axes, name, v)
    return figure


PICTURES: dict[Kind, Callable[[str, Mapping[str, Any]], Figure]] = {
    "layers": layer_picture,
    "ops": op_picture,
    "recipes": recipe_picture,
    "tasks": task_picture,
}


def _seen(outputs: Callable[[Any], jax.Array], x: Any, axis: int) -> np.ndarray:
    """|dy_t/dx_s v_s| [T, T], each row of its largest; outputs: inputs -> [T, ...]."""
    leaves, tree = jax.tree.flatten(x)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    v = [
        jax.random.normal(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ]

    def moved(s: jax.Array) -> jax.Array:
        only = jnp.arange(SEEN) == s
        cut = [jnp.where(only.reshape((-1,) + (1,) * (one.ndim - axis - 1)), one, 0) for one in v]
        return jax.jvp(outputs, (x,), (jax.tree.unflatten(tree, cut),))[1]

    dy = np.asarray(jax.jit(jax.vmap(moved))(jnp.arange(SEEN)))  # [s, t, ...]
    size = np.linalg.norm(dy.reshape(SEEN, dy.shape[1], -1), axis=-1).T
    return size / np.maximum(size.max(axis=1, keepdims=True), 1e-30)


def _response(axes: Axes, run: Callable[..., Any], features: int) -> None:
    x = jax.random.normal(jax.random.key(0), (EXAMPLES, STEPS, features))
    v = jnp.zeros_like(x).at[:, 0].set(jax.random.normal(jax.random.key(1), (EXAMPLES, features)))
    dy = jax.jit(lambda x, v: jax.jvp(lambda x: run(x)[0], (x,), (v,))[1])(x, v)
    r = np.asarray(jnp.linalg.norm(dy, axis=-1).mean(axis=0))
    shown = r / r.max() if r.any() else r
    axes.loglog(1 + np.arange(len(r)), np.where(shown > 1e-9, shown, np.nan), ".-", markersize=3)
    lag = float(np.sum(np.arange(len(r)) * r) / r.sum()) if r.any() else 0.0
    title = f"impulse response, mean lag {lag:.3g}"
    axes.set(
        xlabel="steps since the impulse, and one", title=title, ylim=(1e-6, 2), xlim=(0.9, STEPS)
    )


def _batch(axes: Axes, name: str, v: np.ndarray) -> None:
    """Sequences down, steps across; of vectors at every step those of the first sequence."""
    if v.ndim == 1:
        v = v[:, None]
    what = "sequence"
    if v.ndim > 2:
        v, what = v[0].reshape(len(v[0]), -1).T, "of the first sequence: feature"
    axes.imshow(v, aspect="auto", interpolation="nearest", cmap="viridis")
    across = "step" if v.shape[1] > 1 else ""
    axes.set(title=f"{name}, {np.nanmin(v):.3g} to {np.nanmax(v):.3g}", xlabel=across, ylabel=what)
    _whole_ticks(axes)
    if v.shape[1] == 1:
        axes.set_xticks([])
    if v.size <= (400 if np.all(np.isnan(v) | (v == np.round(v))) else 64):
        middle = (np.nanmin(v) + np.nanmax(v)) / 2
        for (row, step), number in np.ndenumerate(v):
            if not np.isnan(number):
                axes.text(step, row, f"{number:.3g}", ha="center", va="center", fontsize=6,
                          color="white" if number < middle else "black")  # fmt: skip


def _matrix(axes: Axes, M: np.ndarray, title: str, across: str, down: str) -> None:
    """On a logarithmic scale of four decades; what is zero is white."""
    with np.errstate(divide="ignore"):
        decades = np.log10(M / max(M.max(initial=0), 1e-30))
    image = axes.imshow(np.where(M > 0, decades, np.nan), cmap="magma_r", vmin=-4, vmax=0,
                        interpolation="nearest")  # fmt: skip
    axes.set(title=title, xlabel=across, ylabel=down)
    _whole_ticks(axes)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, ticks=[-4, -2, 0])
    bar.ax.set_yticklabels(["1e-4", "1e-2", "1"], fontsize=7)


def _whole_ticks(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))


def _empty(axes: Axes, title: str, why: str) -> None:
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="0.5")
    axes.set(title=title, xticks=[], yticks=[])


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(fill(title, int(14 * width)), fontsize=10)
    return figure
