"""Echo state networks over many series at once, against reservoirpy; and many networks at once.

command     python -m experiments.reservoirs [--against reservoirpy]
hardware    2 CPU cores with a load of 10, float64; jax 0.10.2, reservoirpy 0.4.2, 2026-11-30
time        6 minutes, of which 3 are theirs
expected

                                             NRMSE  seconds
    mackey_glass  one call                1.90e-03    0.890
                  reservoirpy             1.90e-03    5.957
                  reservoirpy, 2 workers  1.90e-03    6.966
    lorenz        one call                4.47e-04    1.028
                  reservoirpy             4.47e-04    6.872
                  reservoirpy, 2 workers  4.47e-04    6.312
    narma         one call                4.50e-01    1.031
                  reservoirpy             4.50e-01    7.714
                  reservoirpy, 2 workers  4.50e-01    6.888

    narma: NRMSE at the best scale and ridge; 168 reservoirs, 11 s
    radius / leak      0.1      0.2      0.4      0.6      0.8      1.0
              0.1  8.0e-01  7.7e-01  5.9e-01  7.7e-01  8.0e-01  8.0e-01
              0.3  7.8e-01  6.2e-01  5.7e-01  5.5e-01  6.5e-01  8.0e-01
              0.5  7.7e-01  5.7e-01  5.3e-01  5.1e-01  5.0e-01  4.8e-01
              0.7  7.6e-01  5.5e-01  5.0e-01  4.5e-01  3.7e-01  3.6e-01
              0.9  7.5e-01  5.5e-01  4.7e-01  4.4e-01  2.9e-01  2.8e-01
              1.1  7.4e-01  5.5e-01  4.7e-01  4.0e-01  2.8e-01  3.6e-01
              1.3  7.4e-01  5.5e-01  4.9e-01  4.4e-01  3.8e-01  4.1e-01
    best: radius 1.1, leak 0.8, input scale 0.1, ridge 1e-08

    and two such tables of the other series: Mackey-Glass wants a radius of 1.3, Lorenz one of 0.5,
    both no leak

64 series of each kind, 100 units with the same weights on both sides, 100 steps that wash out, 1000
to fit one readout of all series, 500 to score it by. The networks are the same function, and here
6 to 7 times as fast: 64 series share each product with W, which is dense, where reservoirpy has it
sparse and takes the steps of one series after the other. The grid is one compiled call, in which
each network has a radius, a leak and an input scale of its own, and four ridges from one sum of
statistics; its errors are those of one series, on the steps that chose the best.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from statistics import median
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.learn.readout import ridge_readout, solve, statistics
from seqjax.nn.base import Frozen, cast_parameters
from seqjax.tasks.synthetic import series
from seqjax.zoo import make

SERIES, HIDDEN, WASHOUT, TRAIN, TEST, RIDGE = 64, 100, 100, 1000, 500, 1e-6
STEPS = WASHOUT + TRAIN + TEST
OPTIONS = dict(hidden=HIDDEN, spectral_radius=0.9, leak=0.5, density=0.1, bias_scale=0.2)
RADII, LEAKS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3), (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
SCALES, RIDGES = (0.1, 0.3, 1.0, 3.0), (1e-8, 1e-6, 1e-4, 1e-2)


def mackey_glass(key: Array) -> tuple[Array, Array]:
    """The next value, from a start of its own; delay 17."""
    past = 1.2 + 0.2 * jax.random.uniform(key, (171,), minval=-1)
    y = series.mackey_glass(past, (STEPS + 501) * 10)[5000::10, None]
    return y[:-1], y[1:]


def lorenz(key: Array) -> tuple[Array, Array]:
    """The next point, of coordinates of about 1."""
    y = series.lorenz(jax.random.normal(key, (3,)), STEPS + 501)[500:] / 10
    return y[:-1], y[1:]


def narma(key: Array) -> tuple[Array, Array]:
    """The answer of order 10 to noise from 0 to 0.5."""
    u = jax.random.uniform(key, (STEPS + 10,), maxval=0.5)
    y = series.narma(u)
    return u[10:, None], y[-STEPS:, None]


TASKS: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "mackey_glass": mackey_glass, "lorenz": lorenz, "narma": narma,
}  # fmt: skip


def drawn(task: str, count: int) -> tuple[Array, Array]:
    """Inputs and targets [count, STEPS, features]."""
    return jax.jit(jax.vmap(TASKS[task]))(jax.random.split(jax.random.key(0), count))


def nrmse(found: Any, y: Any) -> Any:
    """Of the last TEST steps, over the standard deviation of the targets."""
    return jnp.sqrt(jnp.mean((found - y) ** 2)) / jnp.std(y)


def reservoir(features: int) -> Any:
    return cast_parameters(make("esn", features, rngs=nnx.Rngs(0), **OPTIONS), jnp.float64)


def ours(layer: Any) -> Callable:
    """Predictions [B, TEST, O] by one readout of all series: one compiled call."""

    @jax.jit
    def run(x: Array, y: Array) -> Array:
        states, _ = layer(x)
        fit, test = slice(WASHOUT, WASHOUT + TRAIN), slice(WASHOUT + TRAIN, None)
        return ridge_readout(states[:, fit], y[:, fit], RIDGE)(states[:, test])

    return lambda x, y: jax.block_until_ready(run(x, y))


def theirs(layer: Any, workers: int) -> Callable:
    """The same by reservoirpy with the same weights, the recurrent ones sparse, as it has them."""
    nodes, sparse = import_module("reservoirpy.nodes"), import_module("scipy.sparse")
    W, W_in, b = (np.asarray(v[...]) for v in (layer.W, layer.W_in, layer.b))

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        node = nodes.Reservoir(W=sparse.csr_array(W), Win=W_in, bias=b, lr=OPTIONS["leak"])
        states, end = node.run(x, workers=workers), WASHOUT + TRAIN
        readout = nodes.Ridge(ridge=RIDGE)
        readout.fit(states[:, :end], y[:, :end], warmup=WASHOUT)
        return readout.run(states[:, end:])

    return run


def compared(peer: str | None) -> None:
    """Lines of NRMSE and seconds, the medians of five runs that take turns."""
    print(f"{'':14}{'':22}{'NRMSE':>10}{'seconds':>9}")
    for task in TASKS:
        x, y = drawn(task, SERIES)
        given, layer = (np.asarray(x), np.asarray(y)), reservoir(x.shape[2])
        runs: dict[str, Callable] = {"one call": ours(layer)}
        if peer is not None:
            runs |= {"reservoirpy": theirs(layer, 1), "reservoirpy, 2 workers": theirs(layer, 2)}
        found = {name: run(*given) for name, run in runs.items()}  # and compiled
        took: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(5):
            for name, run in runs.items():
                began = perf_counter()
                run(*given)
                took[name].append(perf_counter() - began)
        for name, predictions in found.items():
            error = float(nrmse(predictions, y[:, -TEST:]))
            print(f"{task:14}{name:22}{error:10.2e}{median(took[name]):9.3f}", flush=True)
            task = ""


def grid(task: str) -> np.ndarray:
    """NRMSE [radii, leaks, scales, ridges] of a reservoir each, on one series, in one call."""
    (x,), (y,) = drawn(task, 1)
    layer = cast_parameters(
        make("esn", x.shape[1], rngs=nnx.Rngs(0), **OPTIONS | dict(spectral_radius=1.0, leak=1.0)),
        jnp.float64,
    )
    graph, weights = nnx.split(layer)

    def one(radius: Array, leak: Array, scale: Array) -> Array:
        esn: Any = nnx.merge(graph, weights)
        esn.W, esn.W_in = Frozen(radius * esn.W[...]), Frozen(scale * esn.W_in[...])
        esn.a = Frozen(jnp.broadcast_to(leak, esn.a.shape))
        states = esn(x[None])[0][0]
        fit, test = slice(WASHOUT, WASHOUT + TRAIN), slice(WASHOUT + TRAIN, None)
        sums = statistics(states[fit], y[fit])
        return jax.vmap(lambda ridge: nrmse(solve(sums, ridge)(states[test]), y[test]))(
            jnp.array(RIDGES)
        )

    each = jnp.meshgrid(*map(jnp.array, (RADII, LEAKS, SCALES)), indexing="ij")
    found = jax.jit(jax.vmap(one))(*(v.reshape(-1) for v in each))
    return np.asarray(found).reshape(*each[0].shape, len(RIDGES))


def main(peer: str | None) -> None:
    jax.config.update("jax_enable_x64", True)
    compared(peer)
    for task in TASKS:
        began = perf_counter()
        found = grid(task)
        count, took = found.size // len(RIDGES), perf_counter() - began
        print(f"\n{task}: NRMSE at the best scale and ridge; {count} reservoirs, {took:.0f} s")
        print("radius / leak" + "".join(f"{leak:9.1f}" for leak in LEAKS))
        for radius, row in zip(RADII, found.min((2, 3)), strict=True):
            print(f"{radius:13.1f}" + "".join(f"{error:9.1e}" for error in row))
        at = np.unravel_index(np.argmin(found), found.shape)
        best = (name[n] for name, n in zip((RADII, LEAKS, SCALES, RIDGES), at, strict=True))
        print("best: radius {}, leak {}, input scale {}, ridge {:.0e}".format(*best), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="echo state networks over many series at once")
    parser.add_argument("--against", choices=["reservoirpy"], help="where it can be imported")
    main(parser.parse_args().against)
