"""Steps that must not count: the loss or its gradient is not finite, or spikes.

A spike is a loss, or a norm of the gradient, more than `spike` standard deviations above the mean
of the last 128 steps, once there were 64, as OLMo-core and Levanter skip steps, at 6 (OLMo 2,
2501.00656, counts them likewise). What happens then is `TrainConfig.bad_step`:

    stop      an error, which names the last good checkpoint
    skip      the parameters, and all else that the step changes, stay as they were; this is decided
              within the compiled step, and the device waits for nobody
    rewind    back to the last checkpoint of a multiple of `save_every` steps, and past the batches
              to the bad one, as PaLM was trained through its spikes (2204.02311, section 5.1)

A spike is among the next 128 all the same, so that a loss that stays high is one no longer; what is
not finite is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.train.config import TrainConfig

if TYPE_CHECKING:
    from seqjax.train.step import TrainState

STEPS = 128  # that a spike is measured against
SPIKE = "spike"  # of the metrics of a step: 1 where it is one


class NotFinite(ArithmeticError):
    """The loss or its gradient became NaN or infinite, or a spike."""


class Guard(NamedTuple):
    """The part of it that is compiled."""

    skips: bool
    spike: float | None

    @classmethod
    def of(cls, config: TrainConfig) -> Guard:
        return cls(config.bad_step == "skip", config.spike)

    def start(self) -> jax.Array | None:
        """[2, 128]: loss and norm of the gradient of the last steps, NaN before there were any."""
        return None if self.spike is None else jnp.full((2, STEPS), jnp.nan, jnp.float32)

    def __call__(
        self, before: TrainState, after: TrainState, metrics: dict[str, Any]
    ) -> tuple[TrainState, dict[str, Any]]:
        """The state after a step that was judged, and its metrics."""
        if not self.skips and self.spike is None:
            return after, metrics
        seen = jnp.stack([metrics["loss"], metrics["gradient_norm"]]).astype(jnp.float32)
        finite = jnp.isfinite(seen).all()
        good, recent = finite, before.recent
        if self.spike is not None and recent is not None:
            enough = jnp.isfinite(recent[0]).sum() >= STEPS // 2
            highest = jnp.nanmean(recent, 1) + self.spike * jnp.nanstd(recent, 1)
            spike = finite & enough & (seen > highest).any()
            good, metrics = finite & ~spike, {**metrics, SPIKE: spike}
            recent = jnp.where(finite, jnp.roll(recent, -1, 1).at[:, -1].set(seen), recent)
        if self.skips:
            kept = jax.tree.map(partial(jnp.where, good), after, before)
            after = kept._replace(step=after.step)
        return after._replace(recent=recent), metrics


class Bad(NamedTuple):
    """A step that must not count, as the host has it."""

    step: int
    loss: float
    gradient_norm: float
    spike: bool

    @classmethod
    def of(cls, step: int, metrics: Mapping[str, float]) -> Bad | None:
        """None of a good one."""
        values, spike = (metrics["loss"], metrics["gradient_norm"]), bool(metrics.get(SPIKE))
        return None if np.isfinite(values).all() and not spike else cls(step, *values, spike)

    def record(self, policy: str, number: int) -> dict[str, float]:
        """What metrics.jsonl has of it."""
        return {policy: number, "bad_loss": self.loss, "bad_gradient_norm": self.gradient_norm}

    def __str__(self) -> str:
        kind = " (a spike)" if self.spike else ""
        return f"step {self.step}: loss {self.loss}, gradient norm {self.gradient_norm}{kind}"
