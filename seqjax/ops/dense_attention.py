"""Softmax attention of n queries to m keys, all of which lie in memory: weights, outputs, and
scores by distance. `softmax_attention` is the same over time.

Letters: H heads, G of keys and values (2305.13245), K and V channels.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from seqjax.core.common import accumulation_dtype


def attention_weights(
    q: Array,
    k: Array,
    seen: Array | None = None,
    *,
    scale: float,
    bias: Array | None = None,
    softcap: float | None = None,
    sink: Array | None = None,
) -> Array:
    """Weights [H, n, m], at least float32, of q [n, H, K] over k [m, G, K].

    seen: bool [n, m], at least one key per query; None: all. bias [H or 1, n, m] is added last.
    sink [n, H]: the score of a value of zero, whose weight is left out.
    """
    (n, H, K), (m, G, _) = q.shape, k.shape
    precise = accumulation_dtype(q.dtype)
    q = q.reshape(n, G, H // G, K)
    scores = scale * jnp.einsum("tghk,sgk->ghts", q, k, preferred_element_type=precise)
    scores = scores.reshape(H, n, m)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.astype(scores.dtype)
    if seen is not None:
        scores = jnp.where(seen[None], scores, jnp.finfo(scores.dtype).min)
    if sink is None:
        return jax.nn.softmax(scores, axis=-1)
    scores = jnp.concatenate([scores, sink.T[..., None].astype(scores.dtype)], axis=-1)
    return jax.nn.softmax(scores, axis=-1)[..., :-1]


def attend(q: Array, k: Array, v: Array, seen: Array | None = None, **options: Any) -> Array:
    """Outputs [n, H, V] of q [n, H, K] over k [m, G, K] and v [m, G, V]; `attention_weights`."""
    weights = attention_weights(q, k, seen, **options).astype(v.dtype)
    H, n, m = weights.shape
    weights = weights.reshape(v.shape[1], H // v.shape[1], n, m)
    return jnp.einsum("ghts,sgv->tghv", weights, v).reshape(n, H, v.shape[2])


def by_key(x: Array) -> Array:
    """x [H, n, w] by distance, the furthest first, to [H, n, w + n - 1] by key: query i stands
    w - 1 keys behind key i, and y[h, i, j] = x[h, i, j - i].

    Rows padded by n and read one shorter slip one place to the right each; no gather.
    """
    H, n, w = x.shape
    flat = jnp.pad(x, ((0, 0), (0, 0), (0, n))).reshape(H, n * (w + n))
    return flat[:, : n * (w + n - 1)].reshape(H, n, w + n - 1)


def relative_scores(q: Array, r: Array) -> Array:
    """q_i . r_{i-j} [H, n, w + n - 1] for q [n, H, R] and r [w, H, R] of the distances w - 1 .. 0
    (Transformer-XL, 1901.02860 sec. 3.3), a bias for `attend` once it is scaled."""
    precise = accumulation_dtype(q.dtype)
    return by_key(jnp.einsum("ihk,jhk->hij", q, r, preferred_element_type=precise))


def forgotten(log_f: Array, n: int) -> Array:
    """[H, n, m]: the sum of log_f [m, H] over (j, i], for the last n of the m steps i."""
    so_far = jnp.cumsum(log_f, axis=0).T
    return so_far[:, so_far.shape[1] - n :, None] - so_far[:, None]
