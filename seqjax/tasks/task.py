"""What a task is: batches to learn from, what goes in, and what is answered.

Letters: B batch, T time, V vocabulary, D dimension.  A batch is batch-first, as everywhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from math import log
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.answers import Answer, Classes, Features, Input, Metrics, Tokens, Values
from seqjax.answers.parts import InParts
from seqjax.core import table

__all__ = [
    "Batch", "Classes", "DataIterator", "Entry", "Features", "Generator", "Metrics", "Spec",
    "Task", "Tokens", "Values", "draw_distinct", "sampler", "uniform_baseline",
]  # fmt: skip


class Batch(NamedTuple):
    """One batch.  The leading shape of `mask` is [B, T] per step, [B] per sequence."""

    x: Any  # as the Input has it: int32 [B, T] tokens, float32 [B, T, D] features
    y: Any  # as the Answer has it: int32 classes, float32 values [..., D]
    mask: Any  # float32 weight of each target in loss and metrics; 0: it does not count
    resets: Any = None  # bool [B, T]: forget the past before consuming step t; None: never
    present: Any = None  # bool [B, T]: not set for padding, which is left out; None: all are there
    dt: Any = None  # float32 [B, T]: the time since the step before; None: steps are even
    keys: Any = None  # uint32 [B, 2], of each row, where the model makes it (`Task.collect`)

    @property
    def beside(self) -> dict[str, Any]:
        """What goes into a model beside x, by its names there, where there is some."""
        given = {"resets": self.resets, "mask": self.present, "dt": self.dt}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Spec:
    """What a model must accept and answer; timed: with the time between steps beside the input."""

    inputs: Input
    outputs: Answer
    timed: bool = False

    @property
    def generates(self) -> bool:
        """Whether the answers are the next inputs, as in a language model."""
        return self.outputs.per_step and self.outputs.next_input == self.inputs.pair[1]

    def widened(self, vocabulary: int | None) -> "Spec":
        """The same for a model that knows so many tokens, at least those there are; None: these.

        A language model answers with all the tokens that it knows. Raises ValueError.
        """
        if vocabulary is None:
            return self
        outputs = self.outputs.widened(vocabulary) if self.generates else self.outputs
        return replace(self, inputs=self.inputs.widened(vocabulary), outputs=outputs)


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


@dataclass
class Rows:
    """`DataIterator` over some rows of the batches of another, all of which are made."""

    batches: DataIterator
    part: range

    def __iter__(self) -> "Rows":
        return self

    def __next__(self) -> Batch:
        part = slice(self.part.start, self.part.stop)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[part], next(self.batches))

    def get_state(self) -> dict[str, Any]:
        return self.batches.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.batches.set_state(state)


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
    epochs: int = field(default=1, kw_only=True)  # updates from the same batch
    # How `seqjax show` writes tokens and classes; empty: as numbers.
    tokens: Sequence[str] = field(default=(), kw_only=True, repr=False)
    classes: Sequence[str] = field(default=(), kw_only=True, repr=False)
    # From the targets of a sequence to the lines [n, 2] that they draw, to the right and down.
    lines: Callable[[Any], list[Any]] | None = field(default=None, kw_only=True, repr=False)

    validation_carries_state: ClassVar[bool] = False  # the same of the validation batches

    @property
    def drawn(self) -> int:
        """How many last steps are forecast by paths that a model draws step by step."""
        return 0

    @property
    def fingerprint(self) -> str:
        """A hash of the data that no option and no seed determines; empty where there is none."""
        return ""

    @property
    def decides(self) -> Mapping[str, Any]:
        """What its data decide of a `TaskConfig`, where that has the defaults."""
        return {}

    @property
    def description(self) -> str:
        """Kinds and sizes of its data, in a line; empty where the config has them."""
        return ""

    def batches(self, seed: int, batch: int, length: int) -> DataIterator:
        """Endless training batches, determined by the seed."""
        return Generator(self.sample, _stream(seed, 0), batch, length)

    def rows(self, seed: int, batch: int, length: int, part: range) -> DataIterator:
        """The same, of each batch these rows alone: what one of several processes needs."""
        return Rows(self.batches(seed, batch, length), part)

    def validation(self, batch: int, length: int, count: int | None = None) -> Iterator[Batch]:
        """The first `count` of the fixed held-out batches, the same for every training seed."""
        if count is None:
            raise ValueError(f"{self.name} is generated without end: say how many batches, count=")
        return islice(Generator(self.sample, _stream(0, 1), batch, length), count)

    def spread(self, count: int, length: int) -> Batch:
        """So many sequences held out, for paths to be drawn of."""
        return next(self.validation(count, length, 1))

    def example(self) -> Sequence[str]:
        """Lines that `seqjax show` prints in place of the arrays of a batch; empty: those."""
        return ()

    def collect(self, model: Any, batch: Batch) -> Batch:
        """What is learned from, or scored: the batch, or what the model does by its keys."""
        return batch

    def score(self, y_hat: jax.Array | InParts, batch: Batch) -> Metrics:
        """Averages over the mask of what the kind of answer measures, "loss" among them."""
        return self.spec.outputs.score(y_hat, batch.y, batch.mask, batch.present)

    def weights(self, batch: Batch) -> Metrics:
        """The weight of the batch in those metrics that do not go by the sum of its mask."""
        return self.spec.outputs.weights(batch.y, batch.mask)

    def summary(self, means: Metrics) -> Metrics:
        """The metrics, of averages of scores."""
        return self.spec.outputs.summary(means)


@dataclass(frozen=True)
class Entry(table.Entry):
    """One row: a task, where it is published, how to try it quickly."""

    make: Callable[..., Task]
    length: int | None = None  # a valid short length for the smoke options; None: the config's
    smoke: Mapping[str, Any] = field(default_factory=dict)


def without(batch: Batch, rows: np.ndarray) -> Batch:
    """The batch with no weight in some of its rows, bool [B]."""
    mask = np.array(batch.mask)
    mask[rows] = 0
    return batch._replace(mask=mask)


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
