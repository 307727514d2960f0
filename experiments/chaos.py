"""A chaotic system learned with the state drawn to the data: too much, too little, and enough.

command     python -m experiments.chaos
hardware    2 CPU cores, shared; jax 0.10.2, 2026-12-01
time        5 minutes
expected    two seeds each

                                      D_stsp                   D_H    last alpha     s
        alpha 1                12.09    5.40           0.82   0.48          1.00    88
        alpha 0                14.06   13.58           0.32   0.81          0.00    41
        alpha 0.1              10.68    6.60           0.43   0.50          0.10    47
        annealed                0.60    0.79           0.17   0.14          0.17   138

A shallow PLRNN of 3 units and 50 ReLUs (arXiv:2306.04406) learns the flow of Lorenz's system from
20000 points, standardised, in sequences of 200 steps, then goes on alone for 10000 from a point it
has not seen. D_stsp compares where it goes, D_H how fast it turns; both are 0 for the same series.

    alpha 1     teacher forcing: every step starts from the data
    alpha 0     backpropagation through the whole sequence, which starts from the data once
    alpha 0.1   generalised teacher forcing
    annealed    the same, alpha from the norm of the Jacobian

An alpha that is annealed begins as teacher forcing and comes down as far as the Jacobians let it:
after so few updates it alone has the attractor. A fixed 0.1 is enough for the gradient and too
little to begin with.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import words
from seqjax.learn.cell import Cell, as_cell
from seqjax.learn.gtf import gtf
from seqjax.learn.learner import batched, squared_error
from seqjax.learn.reconstruction import power_spectrum_error, state_space_divergence
from seqjax.tasks.synthetic.series import lorenz
from seqjax.zoo import make

BATCH, LENGTH, WIDTH, POINTS, ALONE = 16, 200, 50, 20000, 10000
WAYS: dict[str, float | None] = {"alpha 1": 1.0, "alpha 0": 0.0, "alpha 0.1": 0.1, "annealed": None}


def series() -> tuple[jax.Array, jax.Array]:
    """Points to learn from and points to compare with, standardised by the first."""
    z = lorenz(jnp.array([1.0, 2.0, 20.0]), 1000 + POINTS + ALONE)[1000:]
    z = (z - jnp.mean(z[:POINTS], axis=0)[None]) / jnp.std(z[:POINTS], axis=0)[None]
    return z[:POINTS], z[POINTS:]


def network(seed: int) -> tuple[Cell, Any]:
    layer = make("plrnn", 3, width=WIDTH, forcing=0.0, rngs=nnx.Rngs(seed))
    return as_cell(layer)


def train(alpha: float | None, ys: jax.Array, *, updates: int, seed: int) -> tuple[Cell, Any, Any]:
    """The cell, its parameters and the alphas on the way."""
    cell, params = network(seed)
    rate = optax.exponential_decay(5e-3, updates, 0.02)
    optimiser = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(rate))
    learner = batched(gtf(cell, squared_error, jnp.zeros(3), alpha=alpha), BATCH)

    def step(carry, key):
        params, moments, alphas = carry
        at = jax.random.randint(key, (BATCH,), 0, len(ys) - LENGTH)
        cut = jax.vmap(lambda i: jax.lax.dynamic_slice_in_dim(ys, i, LENGTH + 1))(at)
        # a sequence starts from its first point; alpha goes on
        state = learner.init(params)._replace(z=cut[:, 0], previous=cut[:, 0], alpha=alphas)
        beside = jnp.zeros_like(cut[:, 1:])
        _, grads, state = learner.grad(params, state, beside, cut[:, 1:])
        grads = jax.tree.map(lambda g: g / LENGTH, grads)
        updates, moments = optimiser.update(grads, moments, params)
        now = jnp.broadcast_to(jnp.max(state.alpha)[None], (BATCH,))  # the largest of the batch
        return (optax.apply_updates(params, updates), moments, now), now[0]

    @jax.jit
    def run(params):
        start = params, optimiser.init(params), learner.init(params).alpha
        keys = jax.random.split(jax.random.key(seed), updates)
        (params, *_), alphas = jax.lax.scan(step, start, keys)
        return params, alphas

    return cell, *run(params)


def alone(cell: Cell, params: Any, z: jax.Array, steps: int) -> jax.Array:
    """[steps, 3] after z."""

    def body(z, _):
        z = cell.step(params, z, jnp.zeros(3, z.dtype))
        return z, z

    return jax.jit(lambda z: jax.lax.scan(body, z, length=steps)[1])(z)


def measured(cell: Cell, params: Any, held: jax.Array) -> tuple[float, float]:
    """(D_stsp, D_H) of what the cell does alone after the first point of `held`."""
    free = alone(cell, params, held[0], len(held) - 1)
    return (
        state_space_divergence(held[1:], free),
        power_spectrum_error(held[1:], free, smoothing=5.0),
    )


def main(updates: int = 2500, seeds: int = 2) -> None:
    ys, held = series()
    print(f"{'':12}{'D_stsp':>24}{'D_H':>22}{'last alpha':>14}{'s':>6}")
    for name, alpha in WAYS.items():
        began, found, last = monotonic(), [], 0.0
        for seed in range(seeds):
            cell, params, alphas = train(alpha, ys, updates=updates, seed=seed)
            found.append(measured(cell, params, held))
            last = float(alphas[-1])
        stsp, spectra = np.array(found).T
        cells = ["".join(f"{v:8.2f}" for v in stsp), "".join(f"{v:7.2f}" for v in spectra)]
        print(
            f"{name:12}{cells[0]:>24}{cells[1]:>22}{last:14.2f}{monotonic() - began:6.0f}",
            flush=True,
        )


if __name__ == "__main__":
    words()
    main()
