"""Nonlinear recurrences solved for all steps at once: how many iterations it takes, and the time.

command     python -m experiments.newton        (or names of cells)
expected    TABLE

A cell of 16 units over T steps of Gaussian inputs. Its recurrent weights are drawn from
N(0, scale^2 / 16): at 1 the steps contract, at 2 they expand here and there, at 4 the orbits are
chaotic. Iterations of Newton's method (DEER), with the diagonal of the Jacobian alone (quasi),
and in a trust region (ELK), until the residual is 1e-6 of the states; `-` where 100 are too few and
the loop takes over. The times are those of one evaluation, compiled, as a multiple of the loop's.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from experiments import words
from seqjax.core.newton import newton
from seqjax.zoo import make

# cell -> its recurrent weights
CELLS = {"elman": "U", "gru": "U", "lstm": "U", "slstm": "R"}
WAYS = {"newton": {}, "quasi": dict(quasi=True), "elk": dict(trust=0.01)}
SCALES, LENGTHS, UNITS = (1.0, 1.5, 2.0), (1024,), 16


def cell(name: str, scale: float, units: int = UNITS):
    """The layer with recurrent weights of that scale."""
    layer = make(name, units, rngs=nnx.Rngs(0))
    weights = getattr(layer, CELLS[name])
    draw = jax.random.normal(jax.random.key(1), weights.shape)
    weights.set_value(scale * units**-0.5 * draw)
    return layer


def ways(layer, x: jax.Array) -> dict:
    """Each way, to (iterations, whether it converged) and the states; of the loop no iterations."""
    z, state = layer.drive(x), layer.initial()

    def loop(z):
        return (jnp.int32(0), True), lax.scan(lambda h, z: (layer.step(h, z),) * 2, state, z)[1]

    def solved(options, z):
        found = newton(layer.step, z, state, jacobian=layer.jacobian, max_iterations=100, **options)
        return (found.iterations, ~found.fell_back), found.states

    runs = {"loop": loop} | {way: partial(solved, options) for way, options in WAYS.items()}
    return {way: jax.jit(partial(run, z)) for way, run in runs.items()}


def timed(run) -> tuple[int, bool, float]:
    """Iterations, whether it converged, and the best of three times in seconds."""
    jax.block_until_ready(run())
    best = float("inf")
    for _ in range(3):
        began = perf_counter()
        (iterations, converged), _ = jax.block_until_ready(run())
        best = min(best, perf_counter() - began)
    return int(iterations), bool(converged), best


def main(names: list[str], lengths: tuple[int, ...] = LENGTHS) -> None:
    print(f"{'':8}{'scale':>5}{'T':>7}" + "".join(f"{way:>16}" for way in WAYS))
    for name in names or CELLS:
        for scale in SCALES:
            layer = cell(name, scale)
            for T in lengths:
                x = jax.random.normal(jax.random.key(2), (T, UNITS))
                runs = ways(layer, x)
                _, _, loop = timed(runs.pop("loop"))
                line = f"{name:8}{scale:5.1f}{T:7d}"
                for run in runs.values():
                    iterations, converged, seconds = timed(run)
                    shown = f"{iterations}" if converged else "-"
                    line += f"{shown:>7}{seconds / loop:8.1f}x"
                print(line, flush=True)


if __name__ == "__main__":
    main(words("cell", CELLS))
