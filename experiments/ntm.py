"""Algorithms past the sizes trained on: a neural Turing machine beside an LSTM (arXiv:1410.5401).

command     python -m experiments.ntm        (or names of tasks and of layers: bit_recall lstm)
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-30
time        a quarter of an hour of CPU, without the LSTM at recall and repeated copies
expected    the loss at the end of training, and the share of wrong bits in answers to ..

    bit_copy       vectors       loss      10      20      40
                   ntm         0.0009   0.000   0.007   0.050
                   lstm        0.5652   0.115   0.345   0.447
    repeat_copy    vectors       loss       5       8      12
                   ntm         0.3057   0.067   0.260   0.356
    bit_recall     items         loss       4       8      12
                   ntm         0.0058   0.000   0.002   0.000
    priority_sort  vectors       loss       6       9      12
                   ntm         1.0431   0.142   0.245   0.302
                   lstm        0.8739   0.104   0.224   0.296

Both train on the same batches, of sequences of at most the first size, 4000 of 16 sequences and for
recall 20 thousand of 32; a guess has half of the bits wrong.

Copying shows 1 to 10 vectors of 8 random bits, which are due after them; a guess has a loss of 5.5.
The LSTM has more parameters, 87 thousand to 35. The machine writes one cell after the other and
goes back to the first one: what it has learned is how to go on, and its memory, of 64 cells, has
room for more than it ever was shown. The LSTM holds all vectors in its units, and has learned no
way to hold another.

Recall shows items of 2 vectors of 4 bits, one of them again, and the item after it is due. The
machine learns to look up what it wrote, and 12 items are no harder to it than the 4 it was shown;
with 4000 batches of 16, or 12 thousand at cells=32 width=12 hidden=64, it had 0.23 of the bits of 8
items wrong, and the LSTM, with 4000, 0.215; the LSTM was not run on all of these. The sort has the
4 most urgent of 6 vectors of 4 bits due (a guess: 2.8), and is learned by neither, nor by the
machine in 12 thousand batches (0.147, 0.271, 0.335). Copying up to 5 vectors up to 3 times is half
learned: a loop inside a loop needs more than this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import process_time

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments import words
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import make
from seqjax.tasks.task import Batch

LAYERS = ("ntm", "lstm")


@dataclass(frozen=True)
class Trial:
    """A task, and the sizes that it is measured at: the first is the largest trained on."""

    counted: str  # what a size is a number of
    options: dict[str, int]
    sizes: tuple[int, ...]
    steps: Callable[[int], int]  # of a sequence of that size
    exact: str | None = None  # the option that keeps sequences from being smaller
    updates: int = 4000
    batch: int = 16
    rate: float = 3e-3
    ntm: LayerConfig = LayerConfig("ntm", dict(cells=64, width=12, hidden=64))


TRIALS = {
    "bit_copy": Trial("vectors", dict(bits=8), (10, 20, 40), lambda n: 2 * n + 1, "shortest"),
    "repeat_copy": Trial(
        "vectors", dict(bits=4, repeats=3), (5, 8, 12), lambda n: 4 * n + 2, "shortest"
    ),
    "bit_recall": Trial(
        "items",
        dict(bits=4, vectors=2),
        (4, 8, 12),
        lambda n: 3 * n + 6,
        updates=20_000,
        batch=32,
        rate=1e-3,
        ntm=LayerConfig("ntm", dict(cells=32, width=16, hidden=100, squashed=True)),
    ),
    "priority_sort": Trial("vectors", dict(bits=4, answered=4), (6, 9, 12), lambda n: n + 5),
}


def bit_errors(model: Model, name: str, size: int) -> float:
    """The share of wrong bits in the answers to sequences of that size, or of at most that."""
    trial = TRIALS[name]
    least = {trial.exact: size} if trial.exact else {}
    task = make(name, **trial.options, **least)
    batch = task.sample(jax.random.key(0), 64, trial.steps(size))
    wrong = task.spec.outputs.predict(run(model, batch)) != batch.y
    return float(jnp.sum(wrong.mean(axis=-1) * batch.mask) / jnp.sum(batch.mask))


def run(model: Model, batch: Batch) -> jax.Array:
    return model(batch.x, **batch.beside)[0]


def learn(
    layer: str, name: str = "bit_copy", *, updates: int | None = None, seed: int = 0
) -> tuple[float, list[float]]:
    """The loss of the last batches, and the share of wrong bits at each size of its trial."""
    trial = TRIALS[name]
    updates = updates or trial.updates
    task, steps = make(name, **trial.options), trial.steps(trial.sizes[0])
    chosen = trial.ntm if layer == "ntm" else LayerConfig("lstm", dict(hidden=128))
    config = ModelConfig(layer=(chosen,), features=32, depth=1, mlp="none")
    model = Model(config, task.spec, rngs=nnx.Rngs(seed))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(trial.rate, updates))
    )

    def loss(params, batch):
        y_hat = run(nnx.merge(graph, params, rest), batch)
        return task.score(y_hat, batch)["loss"]

    @jax.jit
    def train(params):
        def update(carry, key):
            params, moments = carry
            batch = task.sample(key, trial.batch, steps)
            value, slope = jax.value_and_grad(loss)(params, batch)
            change, moments = optimiser.update(slope, moments, params)
            return (optax.apply_updates(params, change), moments), value

        keys = jax.random.split(jax.random.key(seed + 1), updates)
        (params, _), losses = jax.lax.scan(update, (params, optimiser.init(params)), keys)
        return params, losses

    params, losses = train(params)
    model = nnx.merge(graph, params, rest)
    errors = [bit_errors(model, name, size) for size in trial.sizes]
    return float(losses[-updates // 20 :].mean()), errors


def main(given: list[str]) -> None:
    names, layers = (
        [word for word in table if word in given] or table for table in (TRIALS, LAYERS)
    )
    for name in names:
        trial = TRIALS[name]
        sizes = "".join(f"{size:>8}" for size in trial.sizes)
        print(f"    {name:15}{trial.counted:10}{'loss':>8}{sizes}", flush=True)
        for layer in layers:
            began = process_time()
            loss, errors = learn(layer, name)
            took = f"   {process_time() - began:.0f} s"
            shown = f"{loss:8.4f}" + "".join(f"{e:8.3f}" for e in errors)
            print(f"    {'':15}{layer:10}{shown}{took}", flush=True)


if __name__ == "__main__":
    main(words("task or layer", [*TRIALS, *LAYERS]))
