"""The likeliest of all that a model may write: beam search.

    found = beam_search(model, [prompt, other], 40, width=4, end=0, length_penalty=1.0)
    found.tokens[0, 0], found.scores[0, 0]        # the best of the first prompt

It keeps the `width` likeliest beginnings. In each step their extensions are ranked by log p, and
the `width` best are kept; of these, what has the `end` token is set aside and leaves its place
empty in that step. At last all that was set aside, and what has not ended, is ranked by
log p / length^penalty, the end token counted. Width 1 is what greedy generation writes; as many as
there are sequences, an exact search.

States of any causal model of tokens are streamed, as `generate` does, in one compiled `lax.scan`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.stacks.model import BATCH_AXES, Model, ModelState
from seqjax.train.generate import aligned, vocabulary_of
from seqjax.train.processes import whole


class Beams(NamedTuple):
    """The best first."""

    tokens: np.ndarray  # int32 [B, width, length]; -1 behind the end
    scores: np.ndarray  # [B, width], log p / length^penalty; -inf where there are not so many


class _Search(NamedTuple):
    """Of one prompt, in `lax.scan`; `done` is set aside, `scores` are raw, `ranks` penalised."""

    tokens: Array  # [W, length]
    scores: Array  # [W]
    done: Array  # [W, length]
    ranks: Array  # [W]


def beam_search(
    model: Model,
    prompts: Sequence[Any],
    length: int,
    *,
    width: int,
    end: int | None = None,
    length_penalty: float = 0.0,
) -> Beams:
    """The likeliest continuations of each prompt, up to `length` tokens.

    end: the token that ends one; None: all have `length`.
    length_penalty: the power of the length that scores are divided by.
    Raises ValueError for what `generate` raises it for and for impossible options,
    FloatingPointError where answers are NaN or +inf.
    """
    V = vocabulary_of(model)
    if width < 1 or length < 1 or length_penalty < 0:
        raise ValueError(
            "a beam search needs width >= 1, length >= 1 and length_penalty >= 0, "
            f"got {width=}, {length=}, {length_penalty=}"
        )
    if end is not None and not 0 <= end < V:
        raise ValueError(f"the end must be a token of 0 .. {V - 1}, got {end}")
    x, mask = model.inputs.opening(*aligned(prompts, model.inputs))
    ending = jnp.int32(-1 if end is None else end)
    found, lost = _beams(model, x, mask, ending, jnp.float32(length_penalty), length, width)
    if np.any(lost := whole(lost)):
        row = np.flatnonzero(lost)[0]
        raise FloatingPointError(f"the answers to prompt {row} are not finite")
    return Beams(*map(whole, found))


@partial(jax.jit, static_argnames=("length", "width"))
def _beams(model, x, mask, end, penalty, length, width):
    y_hat, h = model(x, mask=mask)
    h = _each(lambda leaf, axis: jnp.repeat(leaf, width, axis=axis), h)

    def step(tokens, h):
        y_hat, h = model(tokens[:, None], h)
        return y_hat[:, -1], h

    def follow(h, rows):  # of a pair, all rows of an example have the same source
        moved = _each(lambda leaf, axis: jnp.take(leaf, rows, axis=axis), h)
        return moved._replace(source=h.source)

    return search(step, follow, y_hat[:, -1], h, end, penalty, length=length, width=width)


def search(
    step: Callable[[Array, Any], tuple[Array, Any]],
    follow: Callable[[Any, Array], Any],
    y_hat: Array,
    h: Any,
    end: Array | int,
    penalty: Array | float,
    *,
    length: int,
    width: int,
) -> tuple[tuple[Array, Array], Array]:
    """Beam search over anything that streams: tokens [B, W, length] and scores [B, W] of the best,
    and whether some logits of an example were not finite.

    step(tokens [B W], h) -> logits [B W, V] and the state; follow(h, rows [B W]) -> the state whose
    rows are those of h. y_hat: logits [B, V] of the first token; h: a state of B W rows.
    end: a token, or -1 for none.
    """
    B, V = y_hat.shape
    dead = jnp.full((B, width), -jnp.inf, y_hat.dtype)
    none = jnp.full((B, width, length), -1, jnp.int32)
    first = jnp.broadcast_to(y_hat[:, None], (B, width, V))  # one beam, and others that are dead
    now = _Search(none, dead.at[:, 0].set(0), none, dead)

    def body(carry, n):
        now, y_hat, h, lost = carry
        live = now.scores > -jnp.inf
        lost |= jnp.any(live & ~jnp.all(y_hat < jnp.inf, axis=-1), axis=1)
        total = now.scores[:, :, None] + jax.nn.log_softmax(y_hat, axis=-1)
        scores, place = lax.top_k(
            jnp.where(live[:, :, None], total, -jnp.inf).reshape(B, -1), width
        )
        beam, token = place // V, (place % V).astype(jnp.int32)
        tokens = jnp.take_along_axis(now.tokens, beam[:, :, None], axis=1)
        tokens = tokens.at[:, :, n].set(token)
        ended = token == end
        size = (n + 1).astype(scores.dtype) ** jnp.asarray(penalty, scores.dtype)
        ranks = jnp.where(ended | (n == length - 1), scores / size, -jnp.inf)
        done, ranks = _best((now.done, tokens), (now.ranks, ranks))
        rows = (jnp.arange(B, dtype=beam.dtype)[:, None] * width + beam).ravel()
        y_hat, h = step(token.ravel(), follow(h, rows))
        scores = jnp.where(ended, -jnp.inf, scores)
        return (_Search(tokens, scores, done, ranks), y_hat.reshape(B, width, V), h, lost), None

    lost = jnp.zeros(B, bool)
    (now, _, _, lost), _ = lax.scan(
        body, (now, first, h, lost), jnp.arange(length, dtype=jnp.int32)
    )
    return (jnp.where((now.ranks > -jnp.inf)[:, :, None], now.done, -1), now.ranks), lost


def _best(tokens: tuple[Array, Array], ranks: tuple[Array, Array]) -> tuple[Array, Array]:
    """The first half of two lots, by their ranks."""
    width = ranks[0].shape[1]
    best, place = lax.top_k(jnp.concatenate(ranks, axis=1), width)
    both = jnp.concatenate(tokens, axis=1)
    return jnp.take_along_axis(both, place[:, :, None], axis=1), best


def _each(of: Callable[[Array, int], Array], h: ModelState) -> ModelState:
    """`of` every leaf of a model's state and the axis of its batch."""
    return ModelState(*(
        jax.tree.map(lambda leaf, axis=axis: of(leaf, axis), part)
        for part, axis in zip(h, BATCH_AXES, strict=True)
    ))  # fmt: skip
