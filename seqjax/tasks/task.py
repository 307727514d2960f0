"""What a task is: batches to learn from, the shape of an answer, and the score of an answer.

Letters: B batch, T time, V vocabulary, D dimension.  A batch is batch-first, as everywhere.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import log
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.common import predicted

Metrics = dict[str, Any]  # name -> scalar (traced or float); "loss" is the one to descend


class Batch(NamedTuple):
    """One batch.  The leading shape of `y` and `mask` is [B, T] per step, [B] per sequence."""

    x: Any  # int32 [B, T] tokens, or float32 [B, T, D] features
    y: Any  # int32 classes, or float32 values [..., D]
    mask: Any  # float32 weight of each target in loss and metrics; 0: not asked
    resets: Any = None  # bool [B, T]: forget the past before consuming step t; None: never


@dataclass(frozen=True)
class Tokens:
    """The input is one token of `vocabulary` per step."""

    vocabulary: int


@dataclass(frozen=True)
class Features:
    """The input is a vector of `dimension` floats per step."""

    dimension: int


@dataclass(frozen=True)
class Classes:
    """The answer is logits over `count` classes: [B, T, count] per step, else [B, count]."""

    count: int
    per_step: bool
    blank: int | None = None  # a class the loss counts and the accuracies do not


@dataclass(frozen=True)
class Values:
    """The answer is `dimension` real numbers: [B, T, dimension] per step, else [B, dimension]."""

    dimension: int
    per_step: bool


@dataclass(frozen=True)
class Spec:
    """What a model must accept and answer."""

    inputs: Tokens | Features
    outputs: Classes | Values


class DataIterator(Protocol):
    """An endless stream of batches whose position can be saved: the trainer checkpoints it.

    The state is a small JSON value; `set_state(get_state())` on a new iterator, made with the
    same arguments, continues the stream exactly.
    """

    def __iter__(self) -> "DataIterator": ...
    def __next__(self) -> Batch: ...
    def get_state(self) -> dict[str, Any]: ...
    def set_state(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class Generator:
    """`DataIterator` over a sampler: batch n is drawn with key n of the stream."""

    sample: Callable[[jax.Array, int, int], Batch]
    key: jax.Array
    batch: int
    length: int
    next_index: int = 0

    def __post_init__(self) -> None:
        # Abstract evaluation: an impossible length is answered here, before anything runs.
        jax.eval_shape(lambda key: self.sample(key, self.batch, self.length), self.key)

    def __iter__(self) -> "Generator":
        return self

    def __next__(self) -> Batch:
        key = jax.random.fold_in(self.key, self.next_index)
        self.next_index += 1
        return self.sample(key, self.batch, self.length)

    def get_state(self) -> dict[str, Any]:
        return {"next_index": self.next_index}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.next_index = int(state["next_index"])


@dataclass(frozen=True, eq=False)
class Task:
    """A task: where batches come from, what an answer looks like, what it is worth.

    `sample(key, batch, length)` is a pure function of the key, compiled once per shape;
    `baseline(length)` is the expected score of a predictor that learned nothing but frequencies.
    """

    name: str
    spec: Spec
    sample: Callable[[jax.Array, int, int], Batch] = field(repr=False)
    baseline: Callable[[int], Metrics] = field(repr=False)
    carries_state: bool = field(default=False, kw_only=True)  # batch n+1 continues batch n

    validation_carries_state: ClassVar[bool] = False  # the same of the validation batches

    @property
    def fingerprint(self) -> str:
        """A hash of the data that no option and no seed determines; empty where there is none."""
        return ""

    def batches(self, seed: int, batch: int, length: int) -> DataIterator:
        """Endless training batches, determined by the seed."""
        return Generator(self.sample, _stream(seed, 0), batch, length)

    def validation(self, batch: int, length: int, count: int | None = None) -> Iterator[Batch]:
        """The first `count` of the fixed held-out batches, the same for every training seed."""
        if count is None:
            raise ValueError(f"{self.name} is generated without end: say how many batches, count=")
        return islice(Generator(self.sample, _stream(0, 1), batch, length), count)

    def score(self, y_hat: jax.Array, batch: Batch) -> Metrics:
        """Metrics of the answer `y_hat` (shapes: `Classes`, `Values`), averages over the mask.

        Classes: loss (nats), accuracy and, per step, sequence_accuracy (no counted step wrong).
        Values: loss, which is mse.
        """
        y, mask = jnp.asarray(batch.y), jnp.asarray(batch.mask)
        outputs = self.spec.outputs
        last = outputs.count if isinstance(outputs, Classes) else outputs.dimension
        if y_hat.shape != (*mask.shape, last):
            raise ValueError(
                f"{self.name} expects an answer of shape {(*mask.shape, last)}, got {y_hat.shape}"
            )
        dtype = np.promote_types(y_hat.dtype, np.float32)
        # Selected, not multiplied: a NaN where nothing is asked must not reach the loss.
        y_hat = jnp.where((mask > 0)[..., None], y_hat.astype(dtype), 0)
        mask = mask.astype(dtype)
        if isinstance(outputs, Values):
            mse = _mean(jnp.mean((y_hat - y.astype(dtype)) ** 2, axis=-1), mask)
            return {"loss": mse, "mse": mse}
        chosen = jnp.take_along_axis(y_hat, y[..., None], axis=-1)[..., 0]
        metrics = {"loss": _mean(jax.nn.logsumexp(y_hat, axis=-1) - chosen, mask)}
        counted = mask if outputs.blank is None else jnp.where(y == outputs.blank, 0, mask)
        right = predicted(y_hat).astype(y.dtype) == y
        metrics["accuracy"] = _mean(right.astype(dtype), counted)
        if outputs.per_step:
            whole = jnp.all(right | (counted == 0), axis=1)
            asked = jnp.any(counted > 0, axis=1)
            metrics["sequence_accuracy"] = _mean(whole.astype(dtype), asked.astype(dtype))
        return metrics


@dataclass(frozen=True)
class Entry:
    """One row of the table: how a task is built, where it is published, how to try it quickly."""

    constructor: Callable[..., Task]
    reference: str  # arXiv ids, or the year
    title: str
    length: int  # a valid short length for the smoke options
    smoke: Mapping[str, Any] = field(default_factory=dict)


# The decorator of every sampler: `batch` and `length` are static, so one compilation per shape.
sampler = partial(jax.jit, static_argnums=(1, 2))


def draw_distinct(key: jax.Array, log_p: jax.Array, batch: int, count: int) -> jax.Array:
    """`count` different indices per row, drawn one after the other: int32 [batch, count].

    Each draw has probability proportional to exp(log_p) among the indices left (Gumbel top-k:
    the order of the perturbed log probabilities is the order of the draws).
    """
    perturbed = log_p[None] + jax.random.gumbel(key, (batch, *log_p.shape), jnp.float32)
    return jax.lax.top_k(perturbed, count)[1].astype(jnp.int32)


def uniform_baseline(choices: int) -> Metrics:
    """Expected score of a uniform guess among `choices` classes."""
    return {"loss": log(choices), "accuracy": 1 / choices}


def _stream(seed: int, number: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), number)


def _mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    total = jnp.sum(weights)
    return jnp.sum(values * weights) / jnp.where(total > 0, total, 1)
