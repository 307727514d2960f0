"""Byte-level language modelling of any text file or folder.

Each step shows a byte, the next one is the target, so V = 256 and nothing is out of vocabulary:

    x_t = byte t      y_t = byte t + 1      loss in nats per byte, `bits` per byte beside it

Training batches come in one of two orders, both through a grain pipeline whose position is saved
and restored exactly:

- windows: every window of T + 1 bytes of the training text, shuffled; once each per epoch.  The
  state starts afresh in every window.
- streams: the text is cut into B contiguous streams and step n shows the n-th T bytes of each, so
  a model carries its state from batch to batch (truncated BPTT).  `resets` marks the beginning of
  the streams; what is left of a stream after its last whole window is not used.

With `reset_at_files`, `resets` also marks the first byte of every file.  Validation runs over the
held-out text once, in B streams, and each of its bytes is a target exactly once (the first follows
a newline; the mask is 0 on the filling of the last batch).

Baseline: the frequencies of the training bytes (order 0); about 4.5 bits per byte on Python source.
Compressors are the better yardstick: `text.compression_baselines`.
Length generalisation: evaluate with windows, or with a carried state, longer than the training T.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from operator import itemgetter
from typing import Annotated, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.answers.metrics import bits
from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Classes, DataIterator, Metrics, Spec, Task, Tokens
from seqjax.tasks.text import Text, read_files, split_text, stdlib_text

SPEC = Spec(Tokens(256), Classes(256, per_step=True))  # of a model of bytes, whatever the text


def char_lm(
    *,
    path: str | None = None,
    glob: str | None = None,
    seed: int = 0,
    held_out: Annotated[int, Range(0)] | None = None,
    streams: bool = False,
    reset_at_files: bool = False,
) -> CharLM:
    """Predict the next byte of a file, a folder, or (no path) of Python's own standard library.

    path: a file or folder; None: the source of the running interpreter's standard library.
    glob: which files of the folder; None: all of them, `**/*.py` for the standard library.
    seed: of the order of the files, hence of what is held out.
    held_out: bytes held out, the first ones; None: a tenth of the text, at most 500 kB.
    streams: contiguous streams with a carried state, instead of shuffled windows.
    reset_at_files: the state is reset at the beginning of each file.
    """
    if path is None:
        text = stdlib_text(seed, glob or "**/*.py", held_out)
    else:
        text = split_text(read_files(path, glob or "**/*", seed), held_out)

    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        """Training windows at uniformly random places."""
        _check_length(text, 1, length)
        first = jax.random.randint(key, (batch, 1), 0, len(text.train) - length, jnp.int32)
        at = first + jnp.arange(length + 1, dtype=jnp.int32)[None]
        x, y = (jnp.asarray(text.train)[i].astype(jnp.int32) for i in (at[:, :-1], at[:, 1:]))
        resets = jnp.asarray(text.train_starts)[at[:, :-1]] if reset_at_files else None
        return Batch(x, y, jnp.ones((batch, length), jnp.float32), resets)

    return CharLM(
        name="char_lm",
        spec=SPEC,
        sample=sample,
        baseline=lambda length: _frequencies(text),
        carries_state=streams,
        text=text,
        reset_at_files=reset_at_files,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class CharLM(Task):
    """The task of `char_lm`; `text` holds its bytes."""

    text: Text
    reset_at_files: bool
    validation_carries_state: ClassVar[bool] = True

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the text, of what of it is held out, and of where its files begin."""
        digest = sha256()
        for part in self.text:
            digest.update(f"{part.size};".encode())
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def batches(self, seed: int, batch: int, length: int) -> DataIterator:
        """Endless training batches; the seed shuffles the windows (streams keep their order)."""
        import grain  # takes a second to import, and only text needs it

        _check_length(self.text, batch if self.carries_state else 1, length)
        text, starts = self.text.train, self.text.train_starts
        offsets = np.arange(length + 1)

        def window(first: np.ndarray) -> Batch:
            at = first[:, None] + offsets
            tokens = text[at].astype(np.int32)
            resets = starts[at[:, :-1]] if self.reset_at_files else None
            return Batch(
                tokens[:, :-1], tokens[:, 1:], np.ones(at[:, 1:].shape, np.float32), resets
            )

        def stream(n: int) -> Batch:
            item = window(np.arange(batch) * per_stream + n * length)
            resets = np.zeros(item.x.shape, bool) if item.resets is None else item.resets
            resets[:, 0] |= n == 0
            return item._replace(resets=resets)

        if self.carries_state:
            per_stream = (len(text) - 1) // batch
            pipeline = grain.MapDataset.range(per_stream // length).repeat().map(stream)
        else:
            windows = grain.MapDataset.range(len(text) - length).seed(seed).shuffle().repeat()
            # of batches of one, `repeat` without end has more than an index can count
            batches = windows.batch(batch) if batch > 1 else windows.map(np.atleast_1d)
            pipeline = batches.map(window)
        # A batch is a gather of some microseconds: reading ahead in threads would only cost.
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        return cast(DataIterator, iter(pipeline.to_iter_dataset(options)))

    def validation(self, batch: int, length: int, count: int | None = None) -> Iterator[Batch]:
        """The held-out text once, in `batch` streams; at most `count` batches."""
        text, starts = self.text.validation, self.text.validation_starts
        if not len(text):
            raise ValueError("char_lm has no validation text: held_out is 0")
        per_stream = -(-len(text) // batch)
        steps = -(-per_stream // length)

        def streams(values: np.ndarray) -> np.ndarray:
            rows = np.pad(values, (0, batch * per_stream - len(text))).reshape(batch, per_stream)
            return np.pad(rows, ((0, 0), (0, steps * length - per_stream)))

        before = np.concatenate([np.frombuffer(b"\n", np.uint8), text[:-1]])
        begins = np.concatenate([[True], starts[:-1]]) & self.reset_at_files
        x, y = streams(before).astype(np.int32), streams(text).astype(np.int32)
        mask = streams(np.ones(len(text), np.float32))
        resets = streams(begins)
        resets[:, 0] = True
        whole = Batch(x, y, mask, resets)
        parts = (slice(n * length, (n + 1) * length) for n in range(steps))
        return islice(
            (jax.tree.map(itemgetter((slice(None), part)), whole) for part in parts), count
        )

    def score(self, y_hat: jax.Array, batch: Batch) -> Metrics:
        """loss (nats per byte), bits (per byte) and accuracy."""
        metrics = super().score(y_hat, batch)
        return {
            "loss": metrics["loss"],
            "bits": bits(metrics["loss"]),
            "accuracy": metrics["accuracy"],
        }


def _frequencies(text: Text) -> Metrics:
    """Score on the held-out bytes of the frequencies of the training bytes (plus one)."""
    counts = np.bincount(text.train, minlength=256) + 1
    held_out = np.bincount(text.validation, minlength=256)
    share = held_out / max(held_out.sum(), 1)
    loss = float(-share @ np.log(counts / counts.sum()))
    return {"loss": loss, "bits": bits(loss), "accuracy": float(share[counts.argmax()])}


def _check_length(text: Text, streams: int, length: int) -> None:
    if (len(text.train) - 1) // streams < length:
        raise ValueError(
            f"the training text has {len(text.train)} bytes: too short for {streams} x {length} "
            "steps and the byte after them"
        )
