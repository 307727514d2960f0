"""What implicit learning is for: networks that settle, at a memory that forgets how long it took.

command     python -m experiments.settling
hardware    2 CPU cores
time        3 minutes
expected    a gradient's temporaries do not grow with the steps a state may take to settle

                                 25 steps   100 steps   400 steps
                bptt  KiB            2998       11445       45233
                rbp                   184         184         184
                crbp                  314         314         314

            share of chains wholly right (and settled), mean of three seeds

                            16 cells, 24 steps   16 cells, 400   64 cells, 400
                bptt 24            0.99 (0.00)     0.99 (0.95)     0.98 (0.85)
                bptt 100           0.28 (0.00)     0.48 (1.00)     0.38 (0.99)
                rbp                0.35 (0.00)     0.47 (0.58)     0.22 (0.46)
                crbp               0.53 (0.00)     0.98 (0.95)     0.95 (0.91)

A chain of cells, each open or closed, one of them the source: which are connected to it by open
cells? Every cell sees its own input and its two neighbours' states, so an answer travels one cell
a step and the network must settle. Trained on chains of 16, asked on chains of 16 and of 64, where
it settles for as long as it needs.

    bptt        backpropagation through 24 or 100 steps, loss at the last
    rbp         the fixed point by 24 Neumann terms; the state is stopped after 100 steps
    crbp        the same with the contraction penalty

Nothing makes a network settle that learns by rbp, and where it does not, the gradient is of a
fixed point that is not there: the penalty is what makes it work (arXiv:2005.11362). With
it the answer is learned nearly as well as by backpropagation through just enough steps, in a tenth
of the memory or less, and without having to know how many are enough.
"""

from __future__ import annotations

from functools import partial
from time import monotonic

import jax
import jax.numpy as jnp
import optax

from experiments import words
from seqjax.learn.bptt import bptt
from seqjax.learn.cell import Cell
from seqjax.learn.implicit import crbp, neumann_rbp, settle
from seqjax.learn.learner import Learner, batched

CHANNELS, BATCH, STEPS, TERMS = 8, 32, 100, 24


def chain(length: int) -> Cell:
    """tanh of the three nearest states and the input; a logit per cell."""

    def step(p, h, x):
        near = jnp.pad(h, ((1, 1), (0, 0)))
        seen = jnp.concatenate([near[:-2], h, near[2:], x], axis=1)
        return (h + jnp.tanh(seen @ p["W"] + p["b"][None])) / 2  # damped, or it may alternate

    return Cell(lambda p: jnp.zeros((length, CHANNELS)), step, lambda p, h, x: h @ p["v"] + p["c"])


def parameters(key: jax.Array) -> dict:
    W, v = jax.random.split(key)
    return {
        "W": 0.15 * jax.random.normal(W, (3 * CHANNELS + 2, CHANNELS)),
        "b": jnp.zeros(CHANNELS),
        "v": 0.3 * jax.random.normal(v, (CHANNELS,)),
        "c": jnp.zeros(()),
    }


def puzzles(key: jax.Array, count: int, length: int) -> tuple[jax.Array, jax.Array]:
    """x [count, length, 2], open and source in +-1; y bool [count, length], connected to it."""
    cells, source = jax.random.split(key)
    place = jnp.arange(length)
    is_source = place[None] == jax.random.randint(source, (count, 1), 0, length)
    is_open = jax.random.bernoulli(cells, 0.85, (count, length)) | is_source

    def spread(reached, now):
        opened, source = now
        reached = opened & (reached | source)
        return reached, reached

    closed = jnp.zeros(count, bool)
    ways = [
        jax.lax.scan(spread, closed, (is_open.T, is_source.T), reverse=back)[1].T
        for back in (False, True)
    ]
    x = jnp.stack([is_open, is_source], axis=2).astype(float)
    return 2 * x - 1, ways[0] | ways[1]


def error(logits: jax.Array, connected: jax.Array) -> jax.Array:
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, connected.astype(logits.dtype)))


def unrolled(cell: Cell, steps: int) -> Learner:
    """Backpropagation through `steps` steps on a held input."""

    def last(logits, target):
        connected, counts = target
        return jnp.where(counts, error(logits, connected), 0)

    inner = bptt(cell, last)

    def grad(params, state, xs, ys):
        held = jnp.repeat(xs, steps, axis=0), jnp.repeat(ys, steps, axis=0)
        return inner.grad(params, state, held[0], (held[1], jnp.arange(steps) == steps - 1))

    return Learner(inner.init, grad)


WAYS = {
    "bptt 24": lambda cell: unrolled(cell, TERMS),
    "bptt 100": lambda cell: unrolled(cell, STEPS),
    "rbp": lambda cell: neumann_rbp(cell, error, k=TERMS, steps=STEPS),
    "crbp": lambda cell: crbp(cell, error, k=TERMS, weight=1.0, steps=STEPS),
}


def gradient(learner: Learner, params, x, y):
    """Loss and gradient of a batch of puzzles, every one from the initial state."""
    many = batched(learner, len(x))
    return many.grad(params, many.init(params), x[:, None], y[:, None])[:2]


def train(name: str, *, updates: int, length: int = 16, seed: int = 0):
    learner, optimiser = WAYS[name](chain(length)), optax.adam(3e-3)
    params = parameters(jax.random.key(seed))

    @jax.jit
    def run(params):
        def body(carry, key):
            params, moments = carry
            loss, grads = gradient(learner, params, *puzzles(key, BATCH, length))
            updates, moments = optimiser.update(grads, moments, params)
            return (optax.apply_updates(params, updates), moments), loss

        keys = jax.random.split(jax.random.key(seed + 1), updates)
        return jax.lax.scan(body, (params, optimiser.init(params)), keys)[0][0]

    return run(params)


@partial(jax.jit, static_argnames=("length", "steps"))
def asked(params, *, length: int, steps: int):
    """Share of whole chains right after `steps` steps, and the share of them that settled."""
    x, y = puzzles(jax.random.key(99), 500, length)
    cell = chain(length)
    h = cell.start(params)
    h, residual, _ = jax.vmap(lambda x: settle(cell, params, h, x, tolerance=1e-4, steps=steps))(x)
    right = (jax.vmap(lambda h, x: cell.readout(params, h, x))(h, x) > 0) == y
    return jnp.mean(jnp.all(right, axis=1)), jnp.mean(residual <= 1e-4)


def memory(learner: Learner, length: int = 16) -> float:
    """KiB of temporaries of one gradient."""
    params, (x, y) = parameters(jax.random.key(0)), puzzles(jax.random.key(0), BATCH, length)
    compiled = jax.jit(partial(gradient, learner)).lower(params, x, y).compile()
    told = compiled.memory_analysis()
    return told.temp_size_in_bytes / 1024 if told else 0.0


def main() -> None:
    cell = chain(16)
    print("KiB of temporaries of one gradient, by the steps a state may take to settle")
    for steps in (25, 100, 400):
        whole = memory(unrolled(cell, steps))
        rbp, contractor = (
            memory(make(cell, error, k=TERMS, steps=steps)) for make in (neumann_rbp, crbp)
        )
        print(f"{steps:4d} steps   bptt {whole:6.0f}   rbp {rbp:4.0f}   crbp {contractor:4.0f}")
    print("chains wholly right (and settled): mean of three seeds")
    print("           16 cells, 24 steps   16 cells, 400   64 cells, 400   training")
    for name in WAYS:
        began, shares = monotonic(), []
        for seed in range(3):
            params = train(name, updates=2000, seed=seed)
            shown = [asked(params, length=n, steps=s) for n, s in ((16, 24), (16, 400), (64, 400))]
            shares.append(jnp.array(shown))
        cells = "     ".join(f"{a:.2f} ({b:.2f})" for a, b in jnp.mean(jnp.stack(shares), axis=0))
        print(f"{name:9s}      {cells}    {monotonic() - began:.0f} s")


if __name__ == "__main__":
    words()
    main()
