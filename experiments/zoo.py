"""Every row of the table learns: one small model each, on one task that all of them can do.

command     python -m experiments.zoo        (or names of layers)
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-22
time        TIME
expected    EXPECTED

A token that is not noise is shown once, at a random place among noise, and asked for at the end
(`selective_copy` of one token out of four, 12 steps, chance 0.25): a memory that keeps what counts
is all it takes. One block of the layer at its row's tiny options, 16 features, Adam.
"""

from __future__ import annotations

import sys
from time import monotonic

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from seqjax.config import LayerConfig, ModelConfig
from seqjax.layers import LAYERS
from seqjax.models import Model
from seqjax.tasks import make

LENGTH, CHANCE = 12, 0.25
TASK = make("selective_copy", symbols=4, memorised=1)


def learn(name: str, *, updates: int = 300, batch: int = 32, rate: float = 1e-2) -> float:
    """The accuracy of the layer on fresh sequences after `updates` batches."""
    config = ModelConfig(layer=(LayerConfig(name, LAYERS[name].smoke),), features=16, depth=1)
    model = Model(config, TASK.spec, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, updates))
    )

    def answers(params, key, batch):
        found = TASK.sample(key, batch, LENGTH)
        return nnx.merge(graph, params, rest)(found.x)[0][:, -1], found.y[:, -1]

    def loss(params, key):
        logits, y = answers(params, key, batch)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def run(params):
        def update(carry, key):
            params, moments = carry
            change, moments = optimiser.update(jax.grad(loss)(params, key), moments, params)
            return (optax.apply_updates(params, change), moments), None

        keys = jax.random.split(jax.random.key(1), updates)
        params, _ = jax.lax.scan(update, (params, optimiser.init(params)), keys)[0]
        logits, y = answers(params, jax.random.key(2), 1000)
        return jnp.mean(jnp.argmax(logits, axis=1) == y)

    return float(run(params))


def main(names: list[str]) -> None:
    print(f"accuracy; chance {CHANCE}")
    for name in names or LAYERS:
        began = monotonic()
        print(f"{name:24}{learn(name):6.2f}   {monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
