"""Independent yes or no: the 88 keys of a piano, the pixels of a binary image."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.answers import metrics
from seqjax.answers.answer import Answer, Metrics, Targets
from seqjax.answers.inputs import Features
from seqjax.core.ranges import Count

COUNTED = ("true positives", "predicted", "actual")


@dataclass(frozen=True)
class Bernoullis(Answer):
    """p(y) = prod_k sigmoid(y_hat_k)^y_k (1 - sigmoid(y_hat_k))^(1 - y_k), targets 0 or 1.

    The loss is the frame NLL, -log p(y) summed over the `count` of them (arXiv:1206.6392).
    Metrics: f1 and accuracy TP / (TP + FP + FN) over all of them and all targets.
    """

    count: Count
    per_step: bool

    options = ("temperature",)

    @property
    def size(self) -> int:
        return self.count

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count,)

    @property
    def next_input(self) -> Features:
        return Features(self.count)

    def loss(self, y_hat, y):
        return metrics.frame_nll(y_hat, y)

    def measures(self, y_hat, y):
        guess = self.predict(y_hat)
        return {name: jnp.sum(v, axis=-1) for name, v in zip(COUNTED, (guess * y, guess, y))}

    def summary(self, means: Metrics) -> Metrics:
        counts = [means[name] for name in COUNTED]
        rest = {name: value for name, value in means.items() if name not in COUNTED}
        return rest | {"f1": metrics.f1(*counts), "accuracy": metrics.jaccard(*counts)}

    def baseline(self, train: Targets, held_out: Targets) -> Metrics:
        """The loss by the frequency of each, with one yes and one no more."""
        (y, mask), (new, weights) = train, held_out
        p = (np.tensordot(mask, y, mask.ndim) + 1) / (mask.sum() + 2)
        nll = -(new * np.log(p) + (1 - new) * np.log1p(-p)).sum(-1)
        return {"loss": float(np.average(nll, weights=weights))}

    def predict(self, y_hat):
        return (y_hat > 0).astype(y_hat.dtype)

    def sample(self, key, y_hat, temperature: jax.Array | float = 1.0):
        """The logits are divided by temperature."""
        drawn = jax.random.bernoulli(key, jax.nn.sigmoid(y_hat / temperature))
        return drawn.astype(y_hat.dtype)
