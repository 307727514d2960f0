"""Whether it is there or not: two classes, of which one may be rare."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from seqjax.answers import metrics
from seqjax.answers.answer import Metrics
from seqjax.answers.classes import Classes
from seqjax.core.ranges import Count

LARGEST, PER_UNIT = 8, 8  # of the scores that are distinguished, and bins to a unit
BINS = 2 * LARGEST * PER_UNIT
COUNTED = tuple(f"{kind} {n}" for kind in ("absent", "present") for n in range(BINS))


@dataclass(frozen=True)
class Detection(Classes):
    """Logits of 0, absent, and 1, present; the loss is the cross entropy in nats.

    Metrics beside those of `Classes`: auroc, the area under the receiver operating characteristic,
    over all targets together. It is the chance that what is present has a larger score
    s = y_hat_1 - y_hat_0 than what is absent (Hanley & McNeil 1982), ties counting half; scores in
    the same eighth are ties, as are all beyond 8.
    """

    count: Count = field(default=2, init=False)

    def metrics(self, y_hat: jax.Array, y: jax.Array, mask: jax.Array) -> Metrics:
        score = y_hat[..., 1] - y_hat[..., 0]
        place = jnp.clip(jnp.floor((score + LARGEST) * PER_UNIT), 0, BINS - 1).astype(jnp.int32)
        places = y.astype(jnp.int32) * BINS + place
        counts = jnp.zeros(2 * BINS, mask.dtype).at[places.ravel()].add(mask.ravel())
        share = counts / jnp.maximum(jnp.sum(mask), jnp.finfo(mask.dtype).tiny)
        return super().metrics(y_hat, y, mask) | dict(zip(COUNTED, share))

    def summary(self, means: Metrics) -> Metrics:
        shares = jnp.stack([jnp.asarray(means[name]) for name in COUNTED])
        rest = {name: value for name, value in means.items() if name not in COUNTED}
        return rest | {"auroc": metrics.area(shares[:BINS], shares[BINS:])}
