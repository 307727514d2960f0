"""Nonlinear recurrences solved for all steps at once: how many iterations it takes, and the time.

command     python -m experiments.newton        (or names of cells, and lengths: gru 4096 16384)
hardware    2 CPU cores, beside other work; Python 3.11.7, jax 0.10.2, 2026-11-30
time        8 minutes, in three runs, and 12 for the longer ones, with the cores shared by many
expected

              scale      T          newton           quasi             elk
    elman       1.0   1024      6    15.4x     31    23.8x      6   499.6x
    elman       1.5   1024     11    67.8x     80   109.9x      9  1781.1x
    elman       2.0   1024      -   307.1x      -    78.0x      - 10478.6x
    gru         1.0   1024      4     8.6x     14    20.4x      4   163.0x
    gru         1.5   1024      4    11.0x     23    42.7x      4   190.1x
    gru         2.0   1024      6     9.9x     41    39.0x      5   126.7x
    gru         1.0   4096      4    29.8x     14   193.6x      4  1444.9x
    gru         1.0  16384      4    49.4x     15    75.7x      4   674.9x
    gru         1.5   4096      5     8.2x     24     5.4x      5   497.4x
    gru         1.5  16384      5   116.3x     25   305.7x      5  1592.5x
    gru         2.0   4096      6    91.8x     43  2311.9x      6  5877.7x
    gru         2.0  16384      6    27.2x     45   155.2x      6   556.6x
    lstm        1.0   1024      4    15.7x     27    60.7x      5  1266.1x
    lstm        1.5   1024      5    28.1x     45    62.2x      5   759.2x
    lstm        2.0   1024      7    29.6x     80    87.8x      7   930.6x
    slstm       1.0   1024     17    17.2x     26     5.7x      -  1890.7x
    slstm       1.5   1024     54    86.7x     48    21.0x      -  4980.4x
    slstm       2.0   1024      -   141.5x     79    21.9x      -  2190.9x
    gru_units   1.0   1024     15    13.5x                     21   463.0x
    gru_units   1.5   1024     21    22.6x                      -  3680.7x
    gru_units   2.0   1024     47    32.8x                      -  2451.8x
    lstm_units  1.0   1024     11    25.7x                      -  3891.3x
    lstm_units  1.5   1024     20    34.0x                      -  2495.0x
    lstm_units  2.0   1024     32    44.6x                      -  2462.2x

A cell of 16 units over T steps of Gaussian inputs. Its recurrent weights are drawn from
N(0, scale^2 / 16): at 1 the steps contract, at 2 the orbits of the plain cell are chaotic. The
sLSTM has 4 units, whose states are 16 numbers too, and weights from N(0, scale^2 / 4). In
`_units` each unit sees itself only, by weights from N(0, scale^2), and the Jacobian is 16 blocks.
Iterations of Newton's method (DEER), with the diagonal of the Jacobian alone (quasi), and in a
trust region (ELK), until the residual is 1e-6 of the states; `-` where 100 are too few and the loop
takes over. The times are those of one evaluation, compiled, as a multiple of the loop's.

A GRU over sixteen times the steps takes as many iterations, quasi up to a tenth more. The sLSTM,
whose normaliser and stabiliser are part of the state, takes the most; the diagonal alone gets
further with it than the whole Jacobian, and the trust region nowhere.

On a CPU the loop wins by far: an iteration works on dense 16 x 16 matrices at every step, the trust
region solves systems of them besides. What can pay off on a device that runs the steps side by side
is what takes few iterations: Newton's where steps contract, the trust region where they nearly do
not (9 for 11), and nothing here where they expand. Blocks of single units make an iteration cheap
in memory and work; with weights of these sizes they take more of them, and the trust region does
not help.
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

# cell -> its recurrent weights; `_units` are cells whose units see themselves only
CELLS = {"elman": "U", "gru": "U", "lstm": "U", "slstm": "R", "gru_units": "U", "lstm_units": "U"}
WAYS = {"newton": {}, "quasi": dict(quasi=True), "elk": dict(trust=0.01)}
SCALES, LENGTHS, UNITS = (1.0, 1.5, 2.0), (1024,), 16
FEWER = {"slstm": 4}  # units: each has four numbers in the state
LONG = 5.0  # seconds


def cell(name: str, scale: float, units: int):
    """The layer with recurrent weights of that scale."""
    kind, _, apart = name.partition("_")
    layer = make(kind, units, rngs=nnx.Rngs(0), **(dict(heads=units) if apart else {}))
    weights = getattr(layer, CELLS[name])
    draw = jax.random.normal(jax.random.key(1), weights.shape)
    weights.set_value(scale * weights.shape[-1] ** -0.5 * draw)
    return layer


def ways(layer, x: jax.Array) -> dict:
    """Each way, to (iterations, whether it converged) and the states; of the loop no iterations."""
    z, state = layer.drive(x), layer.initial()

    def loop(z):
        return (jnp.int32(0), True), lax.scan(lambda h, z: (layer.step(h, z),) * 2, state, z)[1]

    def solved(options, z):
        found = newton(layer.step, z, state, jacobian=layer.jacobian, max_iterations=100, **options)
        return (found.iterations, ~found.fell_back), found.states

    known = {way: options for way, options in WAYS.items()
             if way != "quasi" or layer.jacobian == "dense"}  # fmt: skip
    runs = {"loop": loop} | {way: partial(solved, options) for way, options in known.items()}
    return {way: jax.jit(partial(run, z)) for way, run in runs.items()}


def timed(run) -> tuple[int, bool, float]:
    """Iterations, whether it converged, and the best of three times in seconds, or of fewer where
    one takes long."""
    jax.block_until_ready(run())
    best = float("inf")
    for _ in range(3):
        began = perf_counter()
        (iterations, converged), _ = jax.block_until_ready(run())
        best = min(best, perf_counter() - began)
        if best > LONG:
            break
    return int(iterations), bool(converged), best


def main(names: list[str], lengths: tuple[int, ...] = LENGTHS) -> None:
    print(f"{'':10}{'scale':>5}{'T':>7}" + "".join(f"{way:>16}" for way in WAYS))
    for name in names or CELLS:
        for scale in SCALES:
            units = FEWER.get(name, UNITS)
            layer = cell(name, scale, units)
            for T in lengths:
                x = jax.random.normal(jax.random.key(2), (T, units))
                runs = ways(layer, x)
                _, _, loop = timed(runs.pop("loop"))
                line = f"{name:10}{scale:5.1f}{T:7d}"
                for way in WAYS:
                    if way not in runs:
                        line += f"{'':16}"
                        continue
                    iterations, converged, seconds = timed(runs[way])
                    shown = f"{iterations}" if converged else "-"
                    line += f"{shown:>7}{seconds / loop:8.1f}x"
                print(line, flush=True)


if __name__ == "__main__":
    given = words("cell", CELLS, also=str.isdigit)
    lengths = tuple(int(word) for word in given if word.isdigit())
    main([word for word in given if word in CELLS], lengths or LENGTHS)
