"""Writing with a language model, one token after the other, by streaming its state.

    tokens = generate(model, [prompt, other_prompt], 200, key=jax.random.key(0), temperature=0.8)

The prompts may differ in length: they are aligned at their ends, and what fills them up in front is
masked, which a recurrence leaves out exactly. Sampling is one compiled `lax.scan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seqjax.hf.decoder import Decoder
from seqjax.stacks.model import Model
from seqjax.tasks import Classes, Tokens


def generate(
    model: Model | Decoder,
    prompts: Sequence[Sequence[int]],
    length: int,
    *,
    key: jax.Array | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> np.ndarray:
    """`length` tokens after each prompt, int32 [len(prompts), length].

    key: one key, split among the prompts, or one key for each. It may be left out when greedy.
    temperature: the logits are divided by it; 0 takes the likeliest token.
    top_k, top_p: see `sample`.
    Raises ValueError for empty prompts, tokens outside the vocabulary and impossible options,
    FloatingPointError where logits are NaN or +inf: nothing can be chosen by them.
    """
    inputs, outputs = model.inputs, model.outputs
    if not (isinstance(inputs, Tokens) and isinstance(outputs, Classes) and outputs.per_step
            and inputs.vocabulary == outputs.count):  # fmt: skip
        raise ValueError("only a language model generates: tokens in, the same tokens out per step")
    if not model.causal:
        raise ValueError("only a causal model generates: one of its layers sees the future")
    if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and top_p <= 0):
        raise ValueError(
            "sampling needs temperature >= 0, top_k >= 1 and top_p > 0, "
            f"got {temperature=}, {top_k=}, {top_p=}"
        )
    if length < 0:
        raise ValueError(f"the length has to be at least 0, got {length}")
    tokens, mask = _align(prompts, inputs.vocabulary)
    if key is None:
        if temperature:
            raise ValueError("sampling needs a key; temperature=0 is greedy and needs none")
        key = jax.random.key(0)
    keys = key if key.ndim else jax.random.split(key, len(tokens))
    if len(keys) != len(tokens):
        raise ValueError(f"got {len(keys)} keys for {len(tokens)} prompts")
    settings = (temperature or 1.0, top_k, top_p)  # traced: other values compile nothing new
    chosen, lost = _generate(model, tokens, mask, keys, settings, length, not temperature)
    if np.any(lost):
        n, row = np.argwhere(np.asarray(lost))[0]
        raise FloatingPointError(f"the logits of prompt {row} are not finite before token {n}")
    return np.asarray(chosen).T


def sample(
    key: jax.Array,
    logits: jax.Array,
    temperature: jax.Array | float = 1.0,
    top_k: jax.Array | int | None = None,
    top_p: jax.Array | float | None = None,
) -> jax.Array:
    """A token from logits [V], of those that temperature, top-k and then top-p leave.

    top_k: only the k likeliest tokens. top_p: only the likeliest tokens that are needed to reach
    the probability p together (nucleus sampling, arXiv:1904.09751); at least one.
    """
    logits, order = lax.top_k(logits / temperature, logits.shape[0])
    if top_k is not None:
        logits = jnp.where(jnp.arange(len(logits), dtype=jnp.int32) < top_k, logits, -jnp.inf)
    if top_p is not None:
        likely = jax.nn.softmax(logits)
        before = jnp.cumsum(likely) - likely
        logits = jnp.where((before < top_p).at[0].set(True), logits, -jnp.inf)
    return order[jax.random.categorical(key, logits)]


@partial(jax.jit, static_argnames=("length", "greedy"))
def _generate(model, tokens, mask, keys, settings, length, greedy):
    logits, h = model(tokens, mask=mask)

    def step(carry, n):
        logits, h = carry
        lost = ~jnp.all(logits < jnp.inf, axis=-1)
        if greedy:
            token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        else:
            now = jax.vmap(jax.random.fold_in, (0, None))(keys, n)
            draw = jax.vmap(lambda key, row: sample(key, row, *settings))
            token = draw(now, logits).astype(jnp.int32)
        logits, h = model(token[:, None], h)
        return (logits[:, -1], h), (token, lost)

    start = logits[:, -1], h
    return lax.scan(step, start, jnp.arange(length, dtype=jnp.int32))[1]


def _align(prompts, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [B, T] with the prompts at the end of their rows, and where they are."""
    rows = [np.asarray(prompt, np.int32) for prompt in prompts]
    if not rows or any(row.ndim != 1 or not len(row) for row in rows):
        raise ValueError("generation needs at least one prompt, and every prompt a token")
    if any(row.min() < 0 or row.max() >= vocabulary for row in rows):
        raise ValueError(f"a prompt has tokens outside 0 .. {vocabulary - 1}")
    longest = max(map(len, rows))
    tokens = np.stack([np.pad(row, (longest - len(row), 0)) for row in rows])
    start = np.array([longest - len(row) for row in rows])
    return tokens, np.arange(longest) >= start[:, None]
