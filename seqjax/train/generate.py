"""Writing with a model, one step after the other, by streaming its state.

    tokens = generate(model, [prompt, other_prompt], 200, key=jax.random.key(0), temperature=0.8)

Any causal model writes whose answers are its next inputs: tokens, frames, strokes. The prompts may
differ in length: they are aligned at their ends, and what fills them up in front is masked, which a
recurrence leaves out exactly. Sampling is one compiled `lax.scan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seqjax.answers import Answer, Input
from seqjax.stacks.model import Model
from seqjax.tasks import Spec
from seqjax.train.processes import whole


def generate(
    model: Model,
    prompts: Sequence[Any],
    length: int,
    *,
    key: jax.Array | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> np.ndarray:
    """`length` steps after each prompt [T, *shape]: [len(prompts), length, *shape].

    key: one key, split among the prompts, or one key for each. It may be left out when greedy.
    temperature: of the samples; 0 takes what the answer predicts, the likeliest token.
    top_k, top_p: see `Classes.sample`.
    Raises ValueError for empty prompts, tokens outside the vocabulary and impossible options,
    FloatingPointError where answers are NaN or +inf: nothing can be chosen by them.
    """
    inputs: Input = model.inputs
    outputs: Answer = model.outputs
    check_generates(model)
    if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and top_p <= 0):
        raise ValueError(
            "sampling needs temperature >= 0, top_k >= 1 and top_p > 0, "
            f"got {temperature=}, {top_k=}, {top_p=}"
        )
    if length < 0:
        raise ValueError(f"the length has to be at least 0, got {length}")
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    for name, value in given.items():
        if temperature and name not in outputs.options and value not in (None, 1):
            raise ValueError(f"{type(outputs).__name__} is sampled without {name}, got {value}")
    x, mask = inputs.opening(*aligned(prompts, inputs))
    keys = keys_of(key, len(prompts), temperature)
    given["temperature"] = temperature or 1.0
    options = {name: given[name] for name in outputs.options}  # traced: no value compiles anew
    chosen, lost = _generate(model, x, mask, keys, options, length, not temperature)
    if np.any(lost := whole(lost)):
        n, row = np.argwhere(lost)[0]
        raise FloatingPointError(f"the answers to prompt {row} are not finite before step {n}")
    return np.swapaxes(whole(chosen), 0, 1)


@partial(jax.jit, static_argnames=("length", "greedy"))
def _generate(model, x, mask, keys, options, length, greedy):
    y_hat, h = model(x, mask=mask)

    def draw(key, row):
        return model.outputs.sample(key, row, **options)

    def step(carry, n):
        y_hat, h = carry
        lost = ~jnp.all(y_hat < jnp.inf, axis=-1)
        if greedy:
            y = model.outputs.predict(y_hat)
        else:
            y = jax.vmap(draw)(jax.vmap(jax.random.fold_in, (0, None))(keys, n), y_hat)
        y_hat, h = model(y[:, None], h)
        return (y_hat[:, -1], h), (y, lost)

    start = y_hat[:, -1], h
    return lax.scan(step, start, jnp.arange(length, dtype=jnp.int32))[1]


def check_generates(model: Model) -> None:
    """Raise ValueError unless the answers of the model can be its next inputs."""
    if not Spec(model.inputs, model.outputs).generates:
        raise ValueError(
            "only a model whose answers are its next inputs generates, as a language model: "
            f"got {model.inputs} in, {model.outputs} out"
        )
    if not model.causal:
        raise ValueError("only a causal model generates: one of its layers sees the future")


def vocabulary_of(model: Model) -> int:
    """How many tokens the model writes with. Raises ValueError where it writes something else."""
    check_generates(model)
    if model.outputs.bound is None:
        raise ValueError(f"only a model of tokens can be searched, this one has {model.outputs}")
    return model.outputs.bound


def keys_of(key: jax.Array | None, count: int, temperature: float) -> jax.Array:
    """A key for each prompt, of one or of as many. Raises ValueError."""
    if key is None:
        if temperature:
            raise ValueError("sampling needs a key; temperature=0 is greedy and needs none")
        key = jax.random.key(0)
    keys = key if key.ndim else jax.random.split(key, count)
    if len(keys) != count:
        raise ValueError(f"got {len(keys)} keys for {count} prompts")
    return keys


def aligned(prompts: Sequence[Any], inputs: Input) -> tuple[np.ndarray, np.ndarray]:
    """x [B, T, *shape] with the prompts at the end of their rows, and where they are."""
    rows = [inputs.prompt(prompt) for prompt in prompts]
    if not rows:
        raise ValueError("generation needs at least one prompt")
    longest = max(map(len, rows))
    short = [longest - len(row) for row in rows]
    pads = [((n, 0), *((0, 0) for _ in inputs.shape)) for n in short]
    x = np.stack([np.pad(row, pad) for row, pad in zip(rows, pads)])
    return x, np.arange(longest) >= np.array(short)[:, None]
