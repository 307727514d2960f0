"""Tags of chunks: which steps a name, or a phrase, goes over."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np

from seqjax.answers import metrics
from seqjax.answers.answer import Metrics
from seqjax.answers.classes import Classes

COUNTED = ("true positives", "predicted", "actual")


@dataclass(frozen=True)
class Chunks(Classes):
    """A tag at every step: O, or B-KIND where a chunk begins and I-KIND where it goes on.

    count is len(tags). The loss is the cross entropy of the tags. Metrics beside those of
    `Classes`: precision, recall and f1 of whole chunks, kind and both ends right, all sentences
    together, as conlleval has them (Tjong Kim Sang & Buchholz 2000).
    """

    tags: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        strange = [tag for tag in self.tags if tag != "O" and tag[:2] not in ("B-", "I-")]
        if len(self.tags) != self.count or strange or not self.per_step:
            raise ValueError(
                f"Chunks.tags must be {self.count} tags O, B-KIND or I-KIND of steps, "
                f"got {', '.join(strange or self.tags)}"
            )

    @property
    def kinds(self) -> np.ndarray:
        """int32 [count]: of each tag the kind of its chunk, -1 of O."""
        names = sorted({tag[2:] for tag in self.tags if tag != "O"})
        return np.array([-1 if tag == "O" else names.index(tag[2:]) for tag in self.tags], np.int32)

    @property
    def begins(self) -> np.ndarray:
        """bool [count]: whether a chunk begins there, whatever stands before."""
        return np.array([tag[:1] == "B" for tag in self.tags])

    def metrics(self, y_hat, y, mask) -> Metrics:
        found = super().metrics(y_hat, y, mask)
        sides = []
        for tags in (self.predict(y_hat), y):
            kinds = jnp.where(mask > 0, jnp.asarray(self.kinds)[tags], -1)
            sides.append((kinds, jnp.asarray(self.begins)[tags]))
        counts = metrics.chunk_counts(*sides[0], *sides[1])
        weight = jnp.sum(mask)  # of the metrics of a batch in the mean over batches
        weight = jnp.where(weight > 0, weight, 1)
        return found | {name: n.astype(mask.dtype) / weight for name, n in zip(COUNTED, counts)}

    def summary(self, means: Metrics) -> Metrics:
        hits, predicted, actual = (means[name] for name in COUNTED)
        rest = {name: value for name, value in means.items() if name not in COUNTED}
        return rest | {
            "precision": metrics.ratio(hits, predicted),
            "recall": metrics.ratio(hits, actual),
            "f1": metrics.f1(hits, predicted, actual),
        }
