"""Language models of a text: the next token at every step.

    x_t = token t      y_t = token t + 1      loss in nats per token

Training batches come in one of three orders, all through a grain pipeline whose position is saved
and restored exactly:

- windows: every window of T + 1 tokens of the training text, shuffled; once each per epoch.  The
  state starts afresh in every window.
- streams: the text is cut into B contiguous streams and step n shows the n-th T tokens of each, so
  a model carries its state from batch to batch (truncated BPTT).  `resets` marks the beginning of
  the streams; what is left of a stream after its last whole window is not used.
- packed: the documents of the text, shuffled anew in each epoch, lie one after the other in rows
  that are all full.

With `reset_at_files`, and in packed order, a document sees none before it, in all orders and in
validation: in place of the last token of the one before, its first token follows `before`, a
separator, and `resets` marks that step.  It is a target as all others are, as in the training of
large models.  Validation runs over the held-out text once, in B streams, and each of its tokens is
a target exactly once (the first follows `before`; the mask is 0 on the filling of the last batch).

Baseline: the frequencies of the training tokens (order 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from operator import itemgetter
from typing import Any, ClassVar, Literal, NamedTuple, cast

import jax
import numpy as np

from seqjax.answers.metrics import bits, perplexity
from seqjax.data.pipeline import gathered, packed, repeated
from seqjax.tasks.task import Batch, Classes, DataIterator, Metrics, Spec, Task, Tokens
from seqjax.tasks.texts.text import Text

Order = Literal["windows", "streams", "packed"]
Unit = Literal["bits", "perplexity"]  # what is reported beside the loss


BYTES = tuple(repr(bytes([n]))[2:-1] for n in range(256))  # as they are shown


class Spelling(NamedTuple):
    """Tokens of a text, and what stands for each."""

    names: Sequence[str]
    encode: Callable[[bytes], Sequence[int]]  # raises ValueError for what there is no token for
    decode: Callable[[Sequence[int]], bytes]


def language_model(
    name: str,
    text: Text,
    vocabulary: int,
    *,
    unit: Unit,
    spelling: Spelling,
    order: Order,
    reset_at_files: bool = False,
    before: int,
    uncounted: int | None = None,
) -> LanguageModel:
    """The task of predicting the next token of `text`, of `vocabulary` different ones.

    before: the token that the first one held out follows, and that of each document after a reset.
    uncounted: a token that has no weight as a target.
    """

    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        """Training windows at uniformly random places."""
        _check_length(name, text, 1, length)
        drawn = np.asarray(jax.random.bits(key, (batch, 2), np.uint32)).astype(np.uint64)
        places = (drawn[:, 0] << np.uint64(32) | drawn[:, 1]) % np.uint64(len(text.train) - length)
        at = places.astype(np.int64)[:, None] + np.arange(length + 1)
        return task.windows(at)

    spec = Spec(Tokens(vocabulary), Classes(vocabulary, per_step=True))
    task = LanguageModel(
        name, spec, sample, lambda length: task.frequencies(),
        carries_state=order == "streams", text=text, order=order, unit=unit, spelling=spelling,
        reset_at_files=order == "packed" or reset_at_files, before=before, uncounted=uncounted,
        tokens=spelling.names, classes=spelling.names,
    )  # fmt: skip
    return task


@dataclass(frozen=True, eq=False, kw_only=True)
class LanguageModel(Task):
    """The task of `language_model`; `text` holds its tokens."""

    text: Text
    order: Order
    unit: Unit
    spelling: Spelling
    reset_at_files: bool
    before: int
    uncounted: int | None
    validation_carries_state: ClassVar[bool] = True

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tokens, of what of them is held out, and of where documents begin."""
        digest = sha256()
        for part in self.text:
            digest.update(f"{part.size};".encode())
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def batches(self, seed: int, batch: int, length: int) -> DataIterator:
        """Endless training batches; the seed shuffles them (streams keep their order)."""
        _check_length(self.name, self.text, batch if self.carries_state else 1, length)
        text, offsets = self.text, np.arange(length + 1)

        def window(first: np.ndarray) -> Batch:
            return self.windows(first[:, None] + offsets)

        def stream(n: int) -> Batch:
            item = window(np.arange(batch) * per_stream + n * length)
            resets = np.zeros(item.x.shape, bool) if item.resets is None else item.resets
            resets[:, 0] |= n == 0
            return item._replace(resets=resets)

        if self.order == "packed":
            return self._packed(seed, batch, length)
        if self.order == "windows":
            count = len(text.train) - length
            return cast(DataIterator, gathered(count, window, seed=seed, batch=batch))
        per_stream = (len(text.train) - 1) // batch
        return cast(DataIterator, repeated(per_stream // length, stream))

    def windows(self, at: np.ndarray) -> Batch:
        """Training tokens at the places `at` [B, T + 1]."""
        tokens = self.text.train[at].astype(np.int32)
        x, y, resets = tokens[:, :-1], tokens[:, 1:], None
        if self.reset_at_files:
            resets = self.text.train_starts[at[:, 1:]]
            x = np.where(resets, np.int32(self.before), x)
        return Batch(x, y, self.counted(y), resets)

    def counted(self, y: np.ndarray) -> np.ndarray:
        """The weight of each target."""
        weights = np.ones(y.shape, np.float32)
        return weights if self.uncounted is None else weights * (y != self.uncounted)

    def _packed(self, seed: int, batch: int, length: int) -> DataIterator:
        ends = np.append(np.flatnonzero(self.text.train_starts), len(self.text.train))
        documents = [self.text.train[a:b] for a, b in zip(ends, ends[1:])]

        def collate(rows: dict[str, np.ndarray]) -> Batch:
            x, y = (rows[part].astype(np.int32) for part in ("x", "y"))
            return Batch(x, y, self.counted(y), rows["begins"])

        iterator = packed(
            documents, lambda document: np.append(np.int32(self.before), document), collate,
            seed=seed, batch=batch, length=length,
        )  # fmt: skip
        return cast(DataIterator, iterator)

    def validation(self, batch: int, length: int, count: int | None = None) -> Iterator[Batch]:
        """The held-out text once, in `batch` streams; at most `count` batches."""
        text, starts = self.text.validation, self.text.validation_starts
        if not len(text):
            raise ValueError(f"{self.name} has no validation text: held_out is 0")
        per_stream = -(-len(text) // batch)
        steps = -(-per_stream // length)

        def streams(values: np.ndarray) -> np.ndarray:
            rows = np.pad(values, (0, batch * per_stream - len(text))).reshape(batch, per_stream)
            return np.pad(rows, ((0, 0), (0, steps * length - per_stream)))

        begins = starts & self.reset_at_files
        y = streams(text.astype(np.int32))
        before = np.append(np.int32(self.before), text[:-1].astype(np.int32))
        x = streams(np.where(begins, np.int32(self.before), before))
        mask = streams(self.counted(text))
        resets = streams(begins)
        resets[:, 0] = True
        whole = Batch(x, y, mask, resets)
        parts = (slice(n * length, (n + 1) * length) for n in range(steps))
        return islice(
            (jax.tree.map(itemgetter((slice(None), part)), whole) for part in parts), count
        )

    def score(self, y_hat: jax.Array, batch: Batch) -> Metrics:
        """loss (nats per token), bits per token where they are reported, and accuracy."""
        metrics = super().score(y_hat, batch)
        found = {"loss": metrics["loss"], "accuracy": metrics["accuracy"]}
        return found | ({"bits": bits(found["loss"])} if self.unit == "bits" else {})

    def frequencies(self) -> Metrics:
        """Score on the held-out tokens of the frequencies of the training tokens (plus one)."""
        vocabulary = self.spec.outputs.size
        train, held_out = (
            np.bincount(tokens[self.counted(tokens) > 0], minlength=vocabulary)
            for tokens in (self.text.train, self.text.validation)
        )
        p, share = (train + 1) / (train + 1).sum(), held_out / max(held_out.sum(), 1)
        loss = float(-share @ np.log(p))
        more: Any = bits(loss) if self.unit == "bits" else np.exp(loss)
        return {"loss": loss, self.unit: float(more), "accuracy": float(share[p.argmax()])}

    def summary(self, means: Metrics) -> Metrics:
        """Perplexity is that of the mean loss."""
        more = {"perplexity": perplexity(means["loss"])} if self.unit == "perplexity" else {}
        return {**means, **more}


def _check_length(name: str, text: Text, streams: int, length: int) -> None:
    if (len(text.train) - 1) // streams < length:
        raise ValueError(
            f"the training text of {name} has {len(text.train)} tokens: too short for {streams} x "
            f"{length} steps and the one after them"
        )
