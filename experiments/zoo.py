"""Every row of the table learns: one small model each, on one task that all of them can do.

command     python -m experiments.zoo        (or names of layers)
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-22
time        8 seconds a row, most of it compilation
expected    of the rows asked so far 1.00 for all but gss (0.50) and gau (0.25): elman lstm gru
            indrnn min_gru min_lstm qrnn slstm sru hgru hippo lru s4 s4d s5 dss dlr lssl liquid_s4
            sgconv
            h3 lmu mamba mega hyena linear_transformer performer rfa cosformer retnet rwkv4 rwkv5
            rwkv6 rwkv7 gateloop gsa fox aaren based flash_gau gla fwp deltanet kda comba gdn2

With weights of 0.02 in a squared rectifier, its published start, a GAU of this size hardly moves.

A token that is not noise is shown once, at a random place among noise, and asked for at the end
(`selective_copy` of one token out of four, 12 steps, chance 0.25): a memory that keeps what counts
is all it takes. One block of the layer at its row's tiny options, but that a window or a filter is
as long as the sequence; 16 features, 300 updates of Adam.
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
    options = dict(LAYERS[name].smoke)
    options |= {sight: LENGTH for sight in ("length", "window") if sight in options}
    config = ModelConfig(layer=(LayerConfig(name, options),), features=16, depth=1)
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
