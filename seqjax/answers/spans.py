"""A stretch of the sequence: where an answer to a question stands."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seqjax.answers import metrics
from seqjax.answers.answer import IMPOSSIBLE, Answer


@dataclass(frozen=True)
class Spans(Answer):
    """The first and the last step of a span, [B, 2], from logits [B, T, 2] over the steps.

    The loss is -log p(first) - log p(last) (arXiv:1810.04805, section 4.2). Metrics over the steps
    of the likeliest span with first <= last: exact_match, f1 (arXiv:1606.05250).
    """

    per_step: bool = field(default=True, init=False)

    aligned = False
    dtype = np.int32
    shape = (2,)
    size = 2

    @property
    def padding(self) -> jax.Array:
        return jnp.full(2, IMPOSSIBLE)

    def loss(self, y_hat, y):
        chosen = jnp.take_along_axis(y_hat, y[..., None, :], axis=-2)[..., 0, :]
        return jnp.sum(jax.nn.logsumexp(y_hat, axis=-2) - chosen, axis=-1)

    def measures(self, y_hat, y):
        guess = self.predict(y_hat)
        steps = [span[..., 1] - span[..., 0] + 1 for span in (guess, y)]
        first, last = jnp.maximum(guess[..., 0], y[..., 0]), jnp.minimum(guess[..., 1], y[..., 1])
        both = jnp.maximum(last - first + 1, 0)
        counts = (n.astype(y_hat.dtype) for n in (both, *steps))
        exact = jnp.all(guess == y, axis=-1).astype(y_hat.dtype)
        return {"exact_match": exact, "f1": metrics.f1(*counts)}

    def predict(self, y_hat):
        first, last = y_hat[..., 0], y_hat[..., 1]
        best = lax.cummax(first, axis=first.ndim - 1)  # of the first steps up to here
        end = jnp.argmax(best + last, axis=-1).astype(jnp.int32)
        steps = jnp.arange(first.shape[-1], dtype=jnp.int32)
        seen = steps.reshape((1,) * end.ndim + (-1,)) <= end[..., None]
        start = jnp.argmax(jnp.where(seen, first, -jnp.inf), axis=-1).astype(jnp.int32)
        return jnp.stack([start, end], axis=-1)

    def sample(self, key, y_hat):
        """First and last, drawn apart as the loss has them, of y_hat [T, 2]."""
        return jax.random.categorical(key, y_hat, axis=0).astype(jnp.int32)
