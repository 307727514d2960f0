"""What columns are for: exact real-time learning of a delay, at the cost of a few columns a step.

command     python -m experiments.columns
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-22
time        90 seconds
expected    squared error over the variance (the mean predicts 1), mean of three seeds, by quarters
            of a stream of 240000 steps

                                    1      2      3      4
                columnar        0.385  0.213  0.204  0.203
                ccn             0.464  0.230  0.223  0.214
                constructive    0.539  0.264  0.249  0.247
                tbptt 1,4       0.515  0.202  0.193  0.192
                tbptt 1,12      0.286  0.186  0.190  0.190
                snap 1          0.324  0.192  0.193  0.197

Trace patterning (arXiv:2302.05326 sec. 5): a pattern of three of six cues is shown for one step;
half of the twenty patterns are signs, which are followed, 6 to 10 steps later, by a reward. The
network reads cues and reward and predicts at every step the discounted sum of the rewards to come,
and learns from it at once: windows of one step, one stream, no reset. All have twelve LSTM units
of size one or one LSTM of size twelve, and the same rate of Adam.

    columnar        twelve columns side by side, each sees the stream alone
    ccn             four stages of three columns; a stage also reads the stages before it, and is
                    frozen when the next one begins
    constructive    twelve stages of one column
    tbptt 1,k       the LSTM by backpropagation through the last k steps, at every step
    snap 1          the LSTM by the diagonal of its influence matrix

The delays are random, so that about 0.19 remains for whoever knows them. Columns come within a
tenth of it with exact gradients, no step of the past kept and an influence matrix of one column
each; what they lack to the LSTM is that they do not read each other. Freezing costs more at this
size than reading earlier columns gains: stages that begin late learn what is left over, and the
fewer the columns in a stage, the later its last one begins. The paper's advantage over truncated
backpropagation needs delays longer than the truncation: 12 steps cover these, and 4 steps suffice
where the LSTM's own memory reaches back.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import words
from experiments.learning_rules import linear, network
from seqjax.learn.bptt import tbptt
from seqjax.learn.cell import as_cell, stack
from seqjax.learn.columnar import StagedParams, ccn, columnar, columns, constructive
from seqjax.learn.learner import Learner, squared_error
from seqjax.learn.snap import snap
from seqjax.zoo import make

CUES, WIDTH, GAMMA = 6, 12, 0.9


def stream(key: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """xs [T, CUES + 1], cues and reward; ys [T, 1], the discounted sum of the rewards to come."""
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    patterns = np.array([p for p in np.ndindex(*(2,) * CUES) if sum(p) == 3])
    signs = np.random.default_rng(0).permutation(len(patterns)) < len(patterns) // 2
    xs, t = np.zeros((steps + 64, CUES + 1)), 0
    while t < steps:
        shown = draw.integers(len(patterns))
        xs[t, :CUES] = patterns[shown]
        t += draw.integers(6, 11)
        xs[t, CUES] = signs[shown]
        t += draw.integers(8, 17)
    ys, total = np.zeros((steps + 64, 1)), 0.0
    for t in range(steps + 62, -1, -1):
        total = xs[t + 1, CUES] + GAMMA * total
        ys[t] = total
    return jnp.asarray(xs[:steps], float), jnp.asarray(ys[:steps], float)


class Contender(NamedTuple):
    """A learner, its parameters, and what it has learned to read a step from."""

    learner: Learner
    params: Any


def lstm(make_learner: Callable) -> Callable[[int, jax.Array], Contender]:
    def build(seed, xs):
        cell, params = network("lstm", CUES + 1, 1, seed, hidden=WIDTH)
        return Contender(make_learner(cell, params, xs), params)

    return build


def column(features: int, seeds) -> tuple[Any, Any]:
    """The cell of one LSTM unit, and the parameters of one for each seed, stacked."""
    made = [as_cell(make("lstm", features, hidden=1, rngs=nnx.Rngs(int(n)))) for n in seeds]
    return made[0][0], jax.tree.map(lambda *p: jnp.stack(p), *(params for _, params in made))


def side_by_side(seed: int, xs: jax.Array) -> Contender:
    one, params = column(CUES + 1, 1000 * seed + np.arange(WIDTH))
    top, readout = linear(WIDTH, 1, jax.random.key(seed))
    cell, params = stack(columns(one), top), (params, readout)
    return Contender(columnar(cell, squared_error, params, xs), params)


def staged(stages: int, period: int, make_learner: Callable = ccn):
    def build(seed, xs):
        one, p = column(CUES + 1 + WIDTH, 1000 * seed + np.arange(WIDTH))
        split = lambda v: v.reshape(stages, WIDTH // stages, *v.shape[1:])  # noqa: E731
        params = StagedParams(jax.tree.map(split, p), jnp.zeros((1, WIDTH)), jnp.zeros(1))
        return Contender(make_learner(one, squared_error, params, xs[0], period=period), params)

    return build


def contenders(steps: int) -> dict[str, Callable[[int, jax.Array], Contender]]:
    return {
        "columnar": side_by_side,
        "ccn": staged(4, steps // 4),
        "constructive": staged(WIDTH, steps // WIDTH, constructive),
        "tbptt 1,4": lstm(lambda cell, params, xs: tbptt(cell, squared_error, params, xs, k2=4)),
        "tbptt 1,12": lstm(lambda cell, params, xs: tbptt(cell, squared_error, params, xs, k2=12)),
        "snap 1": lstm(lambda cell, params, xs: snap(cell, squared_error, params, xs)),
    }


def live(build: Callable, steps: int, *, seeds: int = 3, rate: float = 1e-3):
    """Squared error of every step before its update [seeds, steps], over the variance of ys."""
    xs, ys = stream(jax.random.key(0), steps)
    made = [build(seed, xs[:4]) for seed in range(seeds)]
    learner, optimiser = made[0].learner, optax.adam(rate)

    def step(carry, now):
        params, moments, state = carry
        loss, grads, state = learner.grad(params, state, *jax.tree.map(lambda v: v[None], now))
        updates, moments = optimiser.update(grads, moments, params)
        # what is frozen has no gradient, and momentum shall not move it either
        updates = jax.tree.map(lambda u, g: jnp.where(g == 0, 0, u), updates, grads)
        return (optax.apply_updates(params, updates), moments, state), 2 * loss

    @jax.jit
    @jax.vmap
    def life(params):
        return jax.lax.scan(step, (params, optimiser.init(params), learner.init(params)), (xs, ys))

    params = jax.tree.map(lambda *p: jnp.stack(p), *(m.params for m in made))
    return life(params)[1] / jnp.var(ys)


def main(steps: int = 240_000) -> None:
    print(f"squared error over the variance (the mean predicts 1), three seeds, {steps} steps")
    print(f"{'quarter of the stream':14}   1      2      3      4")
    for name, build in contenders(steps).items():
        began = monotonic()
        told = np.asarray(live(build, steps)).reshape(-1, 4, steps // 4).mean(axis=(0, 2))
        cells = "".join(f"{v:7.3f}" for v in told)
        print(f"{name:14}{cells}   {monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    words()
    main()
