"""What a kind of answer defines, and the score that follows from it.

Letters: B batch, T time.  y_hat is what the head returns, y the target it is compared with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.answers.inputs import Input
from seqjax.answers.parts import InParts
from seqjax.core import ranges
from seqjax.core.common import accumulation_dtype

IMPOSSIBLE = -1e5  # a log-probability or logit of nothing
Metrics = dict[str, Any]  # name -> scalar (traced or float); "loss" is the one to descend
Targets = tuple[np.ndarray, np.ndarray]  # y [..., *shape] and the weight of each [...]


class Answer(ABC):
    """A kind of answer: a frozen dataclass.

    size: how many numbers the head returns for one answer.
    per_step: the head answers at every step, [B, T, size]; else once per sequence, [B, size].
    aligned: each answer has a target of its own; else the answers of all steps share one.
    shape, dtype: of one target; None is a length that the batch decides.
    options: those that `sample` takes beside key and y_hat.
    padding: the y_hat of steps that are padding, where answers share a target.
    """

    size: int
    per_step: bool
    shape: tuple[int | None, ...]
    aligned: ClassVar[bool] = True
    dtype: ClassVar[type] = np.float32
    options: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        ranges.check(self, type(self), type(self).__name__)

    @abstractmethod
    def loss(self, y_hat: jax.Array, y: jax.Array) -> jax.Array:
        """[...] of y_hat [..., size] and y [..., *shape], or y_hat [..., T, size] if they share."""

    @abstractmethod
    def predict(self, y_hat: jax.Array) -> jax.Array:
        """The likeliest targets [..., *shape]."""

    @abstractmethod
    def sample(self, key: jax.Array, y_hat: jax.Array) -> jax.Array:
        """One target, drawn from the distribution that one answer describes."""

    def measures(self, y_hat: jax.Array, y: jax.Array) -> Mapping[str, jax.Array]:
        """What is averaged beside the loss, in its shape."""
        return {}

    def summary(self, means: Metrics) -> Metrics:
        """Metrics that are ratios or roots of averages, from all of them at the end."""
        return means

    def weights(self, y: jax.Array, mask: jax.Array) -> Metrics:
        """What a batch weighs in the mean of a metric over batches, where it is not sum(mask)."""
        return {}

    def baseline(self, train: Targets, held_out: Targets) -> Metrics:
        """Metrics on targets held out of what knows the frequencies of others, and no input.

        Empty where no closed form is known.
        """
        return {}

    @property
    def bound(self) -> int | None:
        """Targets are whole numbers from 0 to below it; None: any numbers."""
        return None

    @property
    def padding(self) -> jax.Array | None:
        return None

    @property
    def next_input(self) -> Input | None:
        """The kind of input a target can be, one step later: such a model generates."""
        return None

    def widened(self, vocabulary: int) -> Answer:
        """The same for a model that knows so many tokens, where answers are tokens."""
        return self

    def each(self, y_hat: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        """What `combined` makes the metrics of: of each target the loss, and what is measured."""
        return {"loss": self.loss(y_hat, y), **self.measures(y_hat, y)}

    def combined(self, each: dict[str, jax.Array], y: jax.Array, mask: jax.Array) -> Metrics:
        """Averages over the targets, weighted by mask."""
        return {name: mean(values, mask) for name, values in each.items()}

    def metrics(self, y_hat: jax.Array, y: jax.Array, mask: jax.Array) -> Metrics:
        """Of all targets."""
        return self.combined(self.each(y_hat, y), y, mask)

    @property
    def in_parts(self) -> bool:
        """Whether some steps can be scored after others (`InParts`)."""
        return self.per_step and self.aligned and type(self).metrics is Answer.metrics

    def score(
        self, y_hat: jax.Array | InParts, y: Any, mask: Any, present: jax.Array | None = None
    ) -> Metrics:
        """`metrics`, in float32 at least. What stands where mask is 0 does not count, NaNs neither.

        y_hat: [*mask.shape, size], or [B, T, size] where a sequence has one target; in parts
            where `in_parts`.
        y: [*mask.shape, *shape].
        mask: weight of each target, [B, T] per step, [B] per sequence.
        present: bool [B, T], not set for steps that are padding; None: all are there.
        Raises ValueError for other shapes and kinds of dtype.
        """
        y, mask = jnp.asarray(y), jnp.asarray(mask)
        self._check(y_hat, y, mask)
        dtype = accumulation_dtype(y_hat.dtype)
        if present is not None and self.padding is not None and not isinstance(y_hat, InParts):
            padding = self.padding.astype(y_hat.dtype)
            y_hat = jnp.where(present[..., None], y_hat, padding[None, None])
        # Selected, not multiplied: a NaN that has no weight must not reach the loss.
        y = _select(mask, y.astype(dtype) if issubclass(self.dtype, np.inexact) else y)
        if isinstance(y_hat, InParts):

            def some(y_hat: jax.Array, y: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
                return self.each(_select(mask, y_hat.astype(dtype)), y)

            return self.combined(y_hat.each(some, y, mask), y, mask.astype(dtype))
        y_hat = _select(mask, y_hat.astype(dtype))
        return self.metrics(y_hat, y, mask.astype(dtype))

    def _check(self, y_hat: jax.Array | InParts, y: jax.Array, mask: jax.Array) -> None:
        name, steps = type(self).__name__, () if self.aligned else y_hat.shape[1:2]
        if y_hat.shape != (expected := (*mask.shape, *steps, self.size)):
            raise ValueError(f"{name} expects an answer of shape {expected}, got {y_hat.shape}")
        inexact = issubclass(self.dtype, np.inexact)
        kind = jnp.floating if inexact else jnp.integer
        right = y.ndim == mask.ndim + len(self.shape) and jnp.issubdtype(y.dtype, kind)
        expected = (*mask.shape, *self.shape)
        if not right or any(n not in (None, m) for n, m in zip(expected, y.shape)):
            what = "floats" if inexact else "integers"
            shown = ", ".join("L" if n is None else str(n) for n in expected)
            raise ValueError(
                f"{name} expects targets, {what} [{shown}], got {y.dtype} {list(y.shape)}"
            )


def mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """sum(values weights) / sum(weights); 0 without weight."""
    total = jnp.sum(weights)
    return jnp.sum(values * weights) / jnp.where(total > 0, total, 1)


def _select(mask: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.where((mask > 0).reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, 0)
