"""Writing by guess and check: speculative decoding (Leviathan et al. 2022, arXiv:2211.17192).

    found = speculate(model, draft, [prompt], 200, k=4, key=jax.random.key(0))
    found.tokens, found.accepted

The draft q writes k tokens, which the model p reads at once. A token x is kept with probability
min(1, p(x) / q(x)); the first that is not is replaced by one of norm(max(0, p - q)), and where all
are kept p writes one more (algorithm 1). What is written has exactly the distribution of p, however
bad the draft is: what it saves is steps of the model one after the other.

States go back to the last token that was kept: the model reads the tokens a second time with what
follows masked, which any layer leaves out exactly. One compiled `lax.while_loop`; prompts of a
batch go on each at its own pace.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.stacks.model import Model
from seqjax.train.generate import aligned, keys_of, vocabulary_of
from seqjax.train.processes import whole


class Speculated(NamedTuple):
    tokens: np.ndarray  # int32 [B, length]
    accepted: float  # share of the draft's tokens that were kept


def speculate(
    model: Model,
    draft: Model,
    prompts: Sequence[Any],
    length: int,
    *,
    k: int = 4,
    key: jax.Array | None = None,
    temperature: float = 1.0,
) -> Speculated:
    """`length` tokens after each prompt, as the model alone would write them: the draft proposes k
    at a time.

    key, temperature: as of `generate`. Raises ValueError, too, for models of other tokens.
    """
    V = vocabulary_of(model)
    vocabulary_of(draft)
    if draft.inputs != model.inputs:
        raise ValueError(
            f"the draft must read what the model reads, {model.inputs}, got {draft.inputs}"
        )
    if k < 1 or length < 1 or temperature < 0:
        raise ValueError(
            "speculative decoding needs k >= 1, length >= 1 and temperature >= 0, "
            f"got {k=}, {length=}, {temperature=}"
        )
    x, mask = model.inputs.opening(*aligned(prompts, model.inputs))
    keys = keys_of(key, len(prompts), temperature)
    tokens, kept, proposed, lost = _speculate(
        model, draft, x, mask, keys, jnp.float32(temperature or 1.0), length, k, not temperature, V
    )
    if np.any(lost := whole(lost)):
        row = np.flatnonzero(lost)[0]
        raise FloatingPointError(f"the answers to prompt {row} are not finite")
    return Speculated(whole(tokens), float(kept / proposed))


class _Speculation(NamedTuple):
    """Of B prompts, in `lax.while_loop`."""

    tokens: Array  # [B, length + 2 k + 1]
    count: Array  # [B], of those written
    model: tuple[Array, Any]  # logits [B, V] of the next token, and the state, of either
    draft: tuple[Array, Any]
    kept: Array
    proposed: Array
    lost: Array  # [B]


@partial(jax.jit, static_argnames=("length", "k", "greedy", "V"))
def _speculate(model, draft, x, mask, keys, temperature, length, k, greedy, V):
    place = jnp.arange(k + 1, dtype=jnp.int32)[None]

    def chances(y_hat):
        if greedy:
            return jax.nn.one_hot(model.outputs.predict(y_hat), V, dtype=y_hat.dtype)
        return jax.nn.softmax(y_hat / temperature, axis=-1)

    def draw(keys, p):
        choose = lambda key, p: jax.random.categorical(key, jnp.log(p))  # noqa: E731
        return jax.vmap(choose)(keys, p).astype(jnp.int32)

    def read(of, tokens, h, count):
        """Logits after the first `count` tokens, and the state after them."""
        y_hat, h = of(tokens, h, mask=place < count[:, None])
        last = jnp.maximum(count - 1, 0)[:, None, None]
        return jnp.take_along_axis(y_hat, last, axis=1)[:, 0], h

    def body(now):
        split = jax.vmap(lambda key, n: jax.random.split(jax.random.fold_in(key, n), k + 2))
        own = jnp.swapaxes(split(keys, now.count), 0, 1)  # [k + 2, B]
        busy = now.count < length

        def guess(carry, keys):
            y_hat, h = carry
            q = chances(y_hat)
            token = draw(keys, q)
            y_hat, h = draft(token[:, None], h)
            return (y_hat[:, -1], h), (token, q)

        _, (guesses, q) = lax.scan(guess, now.draft, own[:k])
        guesses, q = jnp.swapaxes(guesses, 0, 1), jnp.swapaxes(q, 0, 1)  # [B, k], [B, k, V]
        first, h = now.model
        after = jnp.concatenate([first[:, None], model(guesses, h)[0]], axis=1)
        p = chances(after)  # [B, k + 1, V]
        of_p, of_q = (
            jnp.take_along_axis(of[:, :k], guesses[:, :, None], axis=2)[:, :, 0] for of in (p, q)
        )
        luck = jax.vmap(lambda key: jax.random.uniform(key, (k,), p.dtype))(own[k])
        right = luck * of_q < of_p
        count = jnp.sum(jnp.cumprod(right.astype(jnp.int32), axis=1), axis=1, dtype=jnp.int32)
        here = lambda of: jnp.take_along_axis(of, count[:, None, None], axis=1)[:, 0]  # noqa: E731
        left = jnp.maximum(here(p) - here(jnp.pad(q, ((0, 0), (0, 1), (0, 0)))), 0)
        left = jnp.where(jnp.sum(left, axis=1, keepdims=True) > 0, left, here(p))
        one_more = draw(own[k + 1], left)
        tokens = jnp.where(
            place == count[:, None], one_more[:, None], jnp.pad(guesses, ((0, 0), (0, 1)))
        )
        new = jnp.where(busy, count + 1, 0)
        write = lambda row, some, at: lax.dynamic_update_slice(row, some, (at,))  # noqa: E731
        kept, lost = jnp.where(busy, count, 0), ~jnp.all(after < jnp.inf, axis=(1, 2))
        return _Speculation(
            jax.vmap(write)(now.tokens, tokens, now.count),
            now.count + new,
            _chosen(busy, read(model, tokens, h, new), now.model),
            _chosen(busy, read(draft, tokens, now.draft[1], new), now.draft),
            now.kept + jnp.sum(kept, dtype=jnp.int32),
            now.proposed + k * jnp.sum(busy, dtype=jnp.int32),
            now.lost | (busy & lost),
        )

    def begin(of):
        y_hat, h = of(x, mask=mask)
        return y_hat[:, -1], h

    B, zero = len(keys), jnp.zeros((), jnp.int32)
    tokens, count = jnp.zeros((B, length + 2 * k + 1), jnp.int32), jnp.zeros(B, jnp.int32)
    lost = jnp.zeros(B, bool)
    now = _Speculation(tokens, count, begin(model), begin(draft), zero, zero, lost)
    now = lax.while_loop(lambda now: jnp.any(now.count < length), body, now)
    return now.tokens[:, :length], now.kept, now.proposed, now.lost


def _chosen(busy: Array, new: tuple[Array, Any], old: tuple[Array, Any]) -> tuple[Array, Any]:
    """Logits of those that were busy; states of others have not moved."""
    return jnp.where(busy[:, None], new[0], old[0]), new[1]
