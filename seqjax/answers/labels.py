"""A sequence of labels, not aligned with the steps: connectionist temporal classification."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.answers import metrics
from seqjax.answers.answer import IMPOSSIBLE, Answer, Metrics
from seqjax.answers.ctc import collapse, ctc_loss
from seqjax.core.ranges import Count

BLANK = 0


@dataclass(frozen=True)
class Labels(Answer):
    """Labels 1 .. count, [B, L], filled up with 0, from logits [B, T, 1 + count]; 0 is the blank.

    The loss is `seqjax.ctc_loss`, -log p(labels) summed over all alignments; of labels that do not
    fit into T steps it is 1e5, without a gradient. Metric: label_error_rate, the edit distance of
    the best path (`predict`) over the number of labels, of all sequences together.
    """

    count: Count
    per_step: bool = field(default=True, init=False)

    aligned = False
    dtype = np.int32
    shape = (None,)

    @property
    def size(self) -> int:
        return 1 + self.count

    @property
    def bound(self) -> int:
        return 1 + self.count

    @property
    def padding(self) -> jax.Array:
        return jnp.full(self.size, IMPOSSIBLE).at[BLANK].set(0)

    def loss(self, y_hat, y):
        loss = ctc_loss(y_hat, y, blank=BLANK)
        return jnp.where(jnp.isposinf(loss), -IMPOSSIBLE, loss)

    def measures(self, y_hat, y):
        decoded = self.predict(y_hat)
        lengths = [jnp.sum(labels != BLANK, axis=-1) for labels in (decoded, y)]
        edits = jax.vmap(metrics.edit_distance)(decoded, y, *lengths)
        return {"edits": edits.astype(y_hat.dtype), "labels": lengths[1].astype(y_hat.dtype)}

    def summary(self, means: Metrics) -> Metrics:
        rate = metrics.ratio(means["edits"], means["labels"])
        return {"loss": means["loss"], "label_error_rate": rate}

    def predict(self, y_hat):
        """Those of the likeliest path, in front; [..., T]."""
        return collapse(jnp.argmax(y_hat, axis=-1).astype(jnp.int32))

    def sample(self, key, y_hat):
        """The labels of one alignment, of y_hat [T, 1 + count]."""
        return collapse(jax.random.categorical(key, y_hat, axis=-1).astype(jnp.int32))
