"""Soft alignment with a source h_1 ... h_S: which of its steps a query looks at.

    alpha_j = exp(e_j) / sum_k exp(e_k)          over the steps that are present, 0 elsewhere
    c       = sum_j alpha_j h_j                  (1409.0473, eqs 5 and 6)

    "additive"          e_j = v_a^T tanh(W_a q + U_a h_j)         1409.0473, A.1.2
    "dot", "general"    e_j = h_j^T q,  h_j^T W_a q               1508.04025, sec. 3.1
    "concat"            of the form of "additive": W_a [q; h_j] = W q + U h_j
    "mlp"               the same with a bias, as OpenNMT has it

With a `window` D the query chooses where it looks (local-p, 1508.04025, eqs 9 and 10): steps
further than D from p are left out, and after the softmax

    p = S sigmoid(v_p^T tanh(W_p q))             alpha_j <- alpha_j exp(-(j - p)^2 / (2 (D/2)^2))

Steps that are not present have no place: j counts from 1 to S those that are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.flow import Source
from seqjax.nn.base import option

SCORES = ("additive", "dot", "general", "concat", "mlp")


class Seen(NamedTuple):
    """A source, as `Alignment` looks at it in every step."""

    keys: jax.Array  # [S, n]
    y: jax.Array  # [S, features]
    there: jax.Array  # bool [S]


class Alignment(nnx.Module):
    """Of queries [query] with a source [S, features]; size: n' of v_a and v_p."""

    def __init__(
        self,
        query: int,
        features: int,
        *,
        score: str,
        size: int,
        window: int | None = None,
        rngs: nnx.Rngs,
    ):
        option("score", score, SCORES)
        if score == "dot" and query != features:
            raise ValueError(f"score='dot' needs a state of {features}, as the source, got {query}")
        self.score, self.window = score, window
        summed = score in ("additive", "concat", "mlp")

        def matrix(n: int, m: int, bias: bool = False) -> nnx.Linear:
            return nnx.Linear(n, m, use_bias=bias, rngs=rngs)

        rows = size if summed else features
        self.W_a = None if score == "dot" else matrix(query, rows, score == "mlp")
        self.U_a = matrix(features, size) if summed else None
        self.v_a = matrix(size, 1) if summed else None
        self.W_p = None if window is None else matrix(query, size)
        self.v_p = None if window is None else matrix(size, 1)

    def seen(self, source: Source) -> Seen:
        keys = source.y if self.U_a is None else self.U_a(source.y)
        return Seen(keys, source.y, source.there)

    def weights(self, q: jax.Array, seen: Seen) -> jax.Array:
        """alpha [S] of one query; zeros where nothing is present."""
        z = q if self.W_a is None else self.W_a(q)
        if self.v_a is not None:
            e = self.v_a(jnp.tanh(z[None] + seen.keys))[:, 0]
        else:
            e = seen.keys @ z
        if self.window is None or self.W_p is None or self.v_p is None:
            return _softmax(e, seen.there)
        place = jnp.cumsum(seen.there, dtype=e.dtype)
        p = place[-1] * jax.nn.sigmoid(self.v_p(jnp.tanh(self.W_p(q))))
        alpha = _softmax(e, seen.there & (jnp.abs(place - p) <= self.window))
        return alpha * jnp.exp(-2 * ((place - p) / self.window) ** 2)

    def __call__(self, q: jax.Array, seen: Seen) -> jax.Array:
        """The context c [features]."""
        return self.weights(q, seen) @ seen.y


def _softmax(e: jax.Array, there: jax.Array) -> jax.Array:
    e = jnp.where(there, e, -jnp.inf)
    most = jax.lax.stop_gradient(jnp.max(e))
    weight = jnp.exp(e - jnp.where(jnp.isfinite(most), most, 0))
    total = jnp.sum(weight)
    return weight / jnp.where(total > 0, total, 1)
