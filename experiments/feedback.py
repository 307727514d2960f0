"""What to read while learning to continue a sequence: the truth, oneself, or a judge.

command     python -m experiments.feedback
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-22
time        10 minutes
expected    squared error over the variance (the mean predicts 1), mean of three seeds

                steps alone          told, one step     1-8    9-24   25-71
                teacher_forcing               0.041   0.126   0.466   1.400
                scheduled_sampling            0.054   0.159   0.573   1.525
                professor_forcing             0.120   1.109   1.826   2.184

A sum of two sines of random frequencies, amplitudes and phases, seen through noise. A GRU of 32
units reads what came before and says the next value. Asked: 24 steps are told, then the network
continues alone, reading its own values, for 72; the squared error is over the variance, without
the noise.

    teacher_forcing      reads the truth at every step
    scheduled_sampling   reads its own value more and more often, at last every other time
    professor_forcing    reads the truth, and must behave alone as it does when told

What shows is the gap itself: told the truth, the network is off by a twentieth of the variance, and
alone, after 25 steps, by more than if it said nothing. Neither cure helps here. Scheduled sampling
asks for the true next value after a wrong one, which a network that has lost the phase cannot know
(what it learns then is the mean: read from itself at every step, it says that from the first on,
0.99 at all distances). The judge of professor forcing looks at likeness and not at the right phase:
it pays for waves that look told with being wrong, already while told.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import words
from experiments.learning_rules import network
from seqjax.learn.cell import Cell
from seqjax.learn.feedback import (
    Players,
    discriminator,
    itself,
    linear as linear_schedule,
    professor_forcing,
    scheduled_sampling,
    teacher_forcing,
)
from seqjax.learn.learner import Learner, batched, squared_error

HIDDEN, TOLD, ALONE, BATCH, NOISE = 32, 24, 72, 32, 0.1
START = np.zeros(1, np.float32)
WEIGHT = 0.02  # of the judge, whose surprise is a hundred times the error


def waves(key: jax.Array, count: int, length: int) -> tuple[jax.Array, jax.Array]:
    """ys [count, length, 1] as told, with noise, and without it."""
    rate, phase, size, noise = jax.random.split(key, 4)
    w = jax.random.uniform(rate, (count, 2, 1), minval=0.15, maxval=0.9)
    p = jax.random.uniform(phase, (count, 2, 1), maxval=2 * jnp.pi)
    a = jax.random.uniform(size, (count, 2, 1), minval=0.5, maxval=1.0)
    clean = jnp.sum(a * jnp.sin(w * jnp.arange(float(length))[None, None] + p), axis=1)[..., None]
    return clean + NOISE * jax.random.normal(noise, clean.shape), clean


def build(way: str, updates: int, seed: int) -> tuple[Cell, Learner, Any, Callable]:
    """Cell, learner of a batch, its parameters, and which of them are the cell's."""
    cell, params = network("gru", 1, 1, seed, hidden=HIDDEN)
    if way == "professor_forcing":
        judge, phi = discriminator(HIDDEN + 1, rngs=nnx.Rngs(seed))
        learner = professor_forcing(cell, squared_error, START, judge, draw=itself, weight=WEIGHT)
        return cell, learner, Players(params, phi), lambda players: players.generator
    if way == "scheduled_sampling":
        # no less than half of the truth: alone from the first step on, nobody knows the wave
        schedule = linear_schedule(1 / updates, floor=0.5)
        learner = scheduled_sampling(cell, squared_error, START, schedule=schedule, draw=itself)
    else:
        learner = teacher_forcing(cell, squared_error, START)
    return cell, learner, params, lambda params: params


WAYS = ("teacher_forcing", "scheduled_sampling", "professor_forcing")


def train(way: str, *, updates: int, seed: int = 0, rate: float = 2e-3):
    """The cell and its parameters after `updates` batches of fresh sequences."""
    cell, one, params, of_cell = build(way, updates, seed)
    learner = batched(one, BATCH)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def step(carry, key):
        params, moments, state = carry
        draw, coins = jax.random.split(key)
        ys = waves(draw, BATCH, TOLD + ALONE)[0]
        fresh = learner.init(params, coins)
        # a sequence begins afresh; how long was learned, and the judge's accuracy, go on
        for kept in ("window", "accuracy"):
            if kept in getattr(fresh, "_fields", ()):
                fresh = fresh._replace(**{kept: getattr(state, kept)})
        _, grads, state = learner.grad(params, fresh, None, ys)
        updates, moments = optimiser.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments, state), None

    @jax.jit
    def run(params):
        start = params, optimiser.init(params), learner.init(params, jax.random.key(0))
        keys = jax.random.split(jax.random.key(seed + 1), updates)
        return jax.lax.scan(step, start, keys)[0][0]

    return cell, of_cell(run(params))


def errors(cell: Cell, params: Any, count: int = 500) -> np.ndarray:
    """Squared error over the variance [TOLD + ALONE] of every step, told and then alone."""
    ys, clean = waves(jax.random.key(99), count, TOLD + ALONE)

    @jax.jit
    @jax.vmap
    def follow(ys):
        before = jnp.concatenate([START[None], ys[:-1]])
        told = jnp.arange(len(ys)) < TOLD + 1

        def body(carry, now):
            h, own = carry
            x = jnp.where(now[1], now[0], own)
            h = cell.step(params, h, x)
            y = cell.readout(params, h, x)
            return (h, y), y

        return jax.lax.scan(body, (cell.start(params), START), (before, told))[1]

    return np.asarray(jnp.mean((follow(ys) - clean) ** 2, axis=(0, 2)) / jnp.var(clean))


def main(updates: int = 2000) -> None:
    spans = {"told, one step": (TOLD // 2, TOLD), "1-8": (TOLD + 1, TOLD + 9),
             "9-24": (TOLD + 9, TOLD + 25), "25-71": (TOLD + 25, None)}  # fmt: skip
    print("squared error over the variance, mean of three seeds")
    print(f"{'steps alone':18}" + "".join(f"{name:>16}" for name in spans))
    for way in WAYS:
        began = monotonic()
        told = np.mean([errors(*train(way, updates=updates, seed=s)) for s in range(3)], axis=0)
        cells = "".join(f"{told[a:b].mean():16.3f}" for a, b in spans.values())
        print(f"{way:18}{cells}   {monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    words()
    main()
