"""One of some classes: a token, a label, a byte."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seqjax.answers.answer import Answer, Metrics, Targets, mean
from seqjax.answers.inputs import Tokens
from seqjax.core.common import predicted
from seqjax.core.ranges import Count, Range


@dataclass(frozen=True)
class Classes(Answer):
    """Logits over `count` classes; the loss is the cross entropy in nats.

    Metrics: loss, accuracy and, per step, sequence_accuracy (no counted step wrong).
    blank: a class that the loss counts and the accuracies do not.
    """

    count: Count
    per_step: bool
    blank: Annotated[int, Range(0)] | None = None

    dtype = np.int32
    shape = ()
    options = ("temperature", "top_k", "top_p")

    @property
    def size(self) -> int:
        return self.count

    @property
    def bound(self) -> int:
        return self.count

    @property
    def next_input(self) -> Tokens:
        return Tokens(self.count)

    def widened(self, vocabulary: int) -> Classes:
        return replace(self, count=vocabulary)

    def loss(self, y_hat, y):
        chosen = jnp.take_along_axis(y_hat, y[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(y_hat, axis=-1) - chosen

    def predict(self, y_hat):
        return predicted(y_hat)

    def each(self, y_hat, y):
        return {"loss": self.loss(y_hat, y), "right": self.predict(y_hat).astype(y.dtype) == y}

    def combined(self, each, y, mask) -> Metrics:
        metrics, right = {"loss": mean(each["loss"], mask)}, each["right"]
        counted = self._counted(y, mask)
        metrics["accuracy"] = mean(right.astype(mask.dtype), counted)
        if self.per_step:
            whole = jnp.all(right | (counted == 0), axis=1)
            weight = jnp.any(counted > 0, axis=1)
            metrics["sequence_accuracy"] = mean(whole.astype(mask.dtype), weight.astype(mask.dtype))
        return metrics

    def weights(self, y, mask) -> Metrics:
        counted = self._counted(y, mask)
        weights = {"accuracy": jnp.sum(counted)}
        if self.per_step:
            weights["sequence_accuracy"] = jnp.sum(jnp.any(counted > 0, axis=1).astype(mask.dtype))
        return weights

    def baseline(self, train: Targets, held_out: Targets) -> Metrics:
        """The likeliest class by frequencies plus one, which no class lacks."""
        seen, new = (
            np.bincount(y.ravel(), mask.ravel(), self.count) for y, mask in (train, held_out)
        )
        p = (seen + 1) / (seen + 1).sum()
        counted = new.copy()
        if self.blank is not None:
            counted[self.blank] = 0
        accuracy = counted[p.argmax()] / max(counted.sum(), 1e-30)
        return {"loss": float(-new @ np.log(p) / new.sum()), "accuracy": float(accuracy)}

    def _counted(self, y, mask):
        """The weights of the accuracies."""
        return mask if self.blank is None else jnp.where(y == self.blank, 0, mask)

    def sample(
        self,
        key: jax.Array,
        y_hat: jax.Array,
        temperature: jax.Array | float = 1.0,
        top_k: jax.Array | int | None = None,
        top_p: jax.Array | float | None = None,
    ) -> jax.Array:
        """A class from logits y_hat [count], of those that temperature, top-k and then top-p leave.

        temperature: the logits are divided by it.
        top_k: only the k likeliest classes.
        top_p: only the likeliest classes that are needed to reach the probability p together
            (nucleus sampling, arXiv:1904.09751); at least one.
        """
        logits, order = lax.top_k(y_hat / temperature, y_hat.shape[0])
        if top_k is not None:
            logits = jnp.where(jnp.arange(len(logits), dtype=jnp.int32) < top_k, logits, -jnp.inf)
        if top_p is not None:
            likely = jax.nn.softmax(logits)
            before = jnp.cumsum(likely) - likely
            logits = jnp.where((before < top_p).at[0].set(True), logits, -jnp.inf)
        return order[jax.random.categorical(key, logits)].astype(jnp.int32)
