"""Copying past the lengths trained on: a neural Turing machine beside an LSTM (arXiv:1410.5401).

command     python -m experiments.ntm        (or ntm, lstm)
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-30
time        3 minutes of CPU
expected    the loss at the end of training, and the share of wrong bits in copies of 10 vectors ..

                loss      10      20      40
        ntm       0.0009   0.000   0.007   0.050
        lstm      0.5652   0.115   0.345   0.447

Sequences of 1 to 10 vectors of 8 random bits are shown, and are due after them (`bit_copy`). A
guess has a loss of 5.5 and half of the bits wrong. Both train on the same 4000 batches of 16; the
LSTM has more parameters, 87 thousand to 35. The machine writes one cell after the other and goes
back to the first one: what it has learned is how to go on, and its memory, of 64 cells, has room
for more than it ever was shown. The LSTM holds all vectors in its units, and has learned no way to
hold another.
"""

from __future__ import annotations

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

BITS, LONGEST, BATCH = 8, 10, 16
LENGTHS = (LONGEST, 2 * LONGEST, 4 * LONGEST)
LAYERS = {
    "ntm": LayerConfig("ntm", dict(cells=64, width=12, hidden=64)),
    "lstm": LayerConfig("lstm", dict(hidden=128)),
}


def bit_errors(model: Model, length: int) -> float:
    """The share of wrong bits in copies of that many vectors."""
    task = make("bit_copy", bits=BITS, shortest=length)
    batch = task.sample(jax.random.key(0), 64, 2 * length + 1)
    wrong = task.spec.outputs.predict(run(model, batch)) != batch.y
    return float(jnp.mean(wrong[:, length + 1 :]))


def run(model: Model, batch: Batch) -> jax.Array:
    return model(batch.x, **batch.beside)[0]


def learn(
    name: str, *, updates: int = 4000, rate: float = 3e-3, seed: int = 0
) -> tuple[float, list[float]]:
    """The loss of the last batches, and the share of wrong bits at each of LENGTHS."""
    task = make("bit_copy", bits=BITS)
    config = ModelConfig(layer=(LAYERS[name],), features=32, depth=1, mlp="none")
    model = Model(config, task.spec, rngs=nnx.Rngs(seed))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, updates))
    )

    def loss(params, batch):
        y_hat = run(nnx.merge(graph, params, rest), batch)
        return task.score(y_hat, batch)["loss"]

    @jax.jit
    def train(params):
        def update(carry, key):
            params, moments = carry
            batch = task.sample(key, BATCH, 2 * LONGEST + 1)
            value, slope = jax.value_and_grad(loss)(params, batch)
            change, moments = optimiser.update(slope, moments, params)
            return (optax.apply_updates(params, change), moments), value

        keys = jax.random.split(jax.random.key(seed + 1), updates)
        (params, _), losses = jax.lax.scan(update, (params, optimiser.init(params)), keys)
        return params, losses

    params, losses = train(params)
    model = nnx.merge(graph, params, rest)
    return float(losses[-updates // 20 :].mean()), [bit_errors(model, n) for n in LENGTHS]


def main(names: list[str]) -> None:
    print(f"{'':8}{'loss':>8}" + "".join(f"{n:>8}" for n in LENGTHS))
    for name in names or LAYERS:
        began = process_time()
        loss, errors = learn(name)
        took = f"   {process_time() - began:.0f} s"
        print(f"{name:8}{loss:8.4f}" + "".join(f"{e:8.3f}" for e in errors) + took, flush=True)


if __name__ == "__main__":
    main(words("layer", LAYERS))
