"""A sequence of labels, not aligned with the steps: connectionist temporal classification."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqjax.answers import metrics
from seqjax.answers.answer import IMPOSSIBLE, Answer, Metrics
from seqjax.core.ranges import Count

BLANK = 0


@dataclass(frozen=True)
class Labels(Answer):
    """Labels 1 .. count, [B, L], filled up with 0, from logits [B, T, 1 + count]; 0 is the blank.

    The loss is the CTC loss (Graves et al. 2006), -log p(labels) summed over all alignments; of
    labels that do not fit into T steps it is about 1e5. Metric: label_error_rate, the edit distance
    of the greedy decoding over the number of labels.
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
        # optax makes arrays of the default float dtype, and does not promote them
        logits = y_hat.astype(jnp.result_type(float))
        padded = (y == BLANK).astype(logits.dtype)
        frames = jnp.zeros(y_hat.shape[:2], logits.dtype)  # where padding is sure of the blank
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            loss = optax.ctc_loss(logits, frames, y, padded, blank_id=BLANK)
        return loss.astype(y_hat.dtype)

    def measures(self, y_hat, y):
        decoded = self.predict(y_hat)
        lengths = [jnp.sum(labels != BLANK, axis=-1) for labels in (decoded, y)]
        edits = jax.vmap(metrics.edit_distance)(decoded, y, *lengths)
        return {"edits": edits.astype(y_hat.dtype), "labels": lengths[1].astype(y_hat.dtype)}

    def summary(self, means: Metrics) -> Metrics:
        rate = metrics.ratio(means["edits"], means["labels"])
        return {"loss": means["loss"], "label_error_rate": rate}

    def predict(self, y_hat):
        """Greedy: the likeliest of each step, repetitions and then blanks removed; [..., T]."""
        return _collapse(jnp.argmax(y_hat, axis=-1).astype(jnp.int32))

    def sample(self, key, y_hat):
        """The labels of one alignment, of y_hat [T, 1 + count]."""
        return _collapse(jax.random.categorical(key, y_hat, axis=-1).astype(jnp.int32))


def _collapse(path: jax.Array) -> jax.Array:
    """The labels of an alignment [..., T] in front, zeros behind."""
    before = jnp.concatenate([jnp.full_like(path[..., :1], BLANK), path[..., :-1]], axis=-1)
    kept = (path != BLANK) & (path != before)
    order = jnp.argsort(~kept, axis=-1, stable=True)
    return jnp.take_along_axis(jnp.where(kept, path, BLANK), order, axis=-1)
