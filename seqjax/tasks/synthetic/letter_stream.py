"""Elman's streams (Elman 1990): what comes next, where only some of it can be known.

`letters`: the consonants b, d and g in random order, each followed by its vowels. The answer on
each step is the next letter:

    b -> ba    d -> dii    g -> guuu          d i i b a g u u u b a ..

The vowels are certain, which one and how many; the next consonant is a guess among three.  The
error falls within a group and jumps at its end, which the metrics show for each letter (loss_b,
loss_a ..), as Elman's figure does for each step.

`words`: sentences of two or three words by the 16 templates below, one after the other without a
stop, and the answer on each step is the next word.  A template is uniform, then each of its words
within its class.  The classes are those of his table, filled with the words of his figure; which
word is of which class is not given.

    x int32 [B, T]      y int32 [B, T] = x one step later

Elman has vectors of features for letters, one-hot vectors for words, and the squared error.

Baseline: frequencies, exact for streams that begin with a group or a sentence.
Length generalisation: the streams are stationary but for their beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.answers.answer import mean
from seqjax.core.common import unknown
from seqjax.tasks.task import Batch, Classes, Metrics, Spec, Task, Tokens, sampler

Strings = list[tuple[float, tuple[str, ...]]]  # probability, symbols

CLASSES = {
    "human": "man woman boy girl",
    "animal": "cat mouse dog",
    "aggressor": "lion monster dragon",
    "thing": "book rock car",
    "fragile": "glass plate",
    "food": "cookie bread sandwich",
    "intransitive": "think sleep exist",
    "transitive": "see chase like",
    "agent or patient": "move break",
    "perception": "smell see",
    "destruction": "break smash",
    "eating": "eat",
}
TEMPLATES = (
    ("human", "eating", "food"),
    ("human", "perception", "thing"),
    ("human", "destruction", "fragile"),
    ("human", "intransitive"),
    ("human", "transitive", "human"),
    ("human", "agent or patient", "thing"),
    ("human", "agent or patient"),
    ("animal", "eating", "food"),
    ("animal", "transitive", "animal"),
    ("animal", "agent or patient", "thing"),
    ("animal", "agent or patient"),
    ("thing", "agent or patient"),
    ("aggressor", "destruction", "fragile"),
    ("aggressor", "eating", "human"),
    ("aggressor", "eating", "animal"),
    ("aggressor", "eating", "food"),
)


def letters() -> Strings:
    return [(1 / 3, tuple(group)) for group in ("ba", "dii", "guuu")]


def sentences() -> Strings:
    found = []
    for template in TEMPLATES:
        words = list(product(*(CLASSES[name].split() for name in template)))
        found += [(1 / len(TEMPLATES) / len(words), sentence) for sentence in words]
    return found


STREAMS = {"letters": letters, "words": sentences}


def letter_stream(*, stream: str = "letters") -> LetterStream:
    """The next symbol of a stream of random strings, for any T.

    stream: "letters" or "words"
    """
    if stream not in STREAMS:
        raise ValueError(unknown("stream", stream, STREAMS))
    p, strings = zip(*STREAMS[stream]())
    symbols = sorted({symbol for string in strings for symbol in string})
    sizes = np.array([len(string) for string in strings], np.int32)
    table = np.zeros((len(strings), sizes.max()), np.int32)
    for row, string in zip(table, strings):
        row[: len(string)] = [symbols.index(symbol) for symbol in string]

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        count = (length + 1) // int(sizes.min()) + 1
        drawn = jax.random.choice(key, len(p), (batch, count), p=jnp.asarray(p, jnp.float32))
        ends = jnp.cumsum(jnp.asarray(sizes)[drawn], axis=1, dtype=jnp.int32)
        t = jnp.arange(length + 1, dtype=jnp.int32)
        which = jax.vmap(lambda row: jnp.searchsorted(row, t, side="right"))(ends)
        string, end = (jnp.take_along_axis(v, which, axis=1) for v in (drawn, ends))
        tokens = jnp.asarray(table)[string, t[None] - end + jnp.asarray(sizes)[string]]
        return Batch(tokens[:, :-1], tokens[:, 1:], jnp.ones((batch, length), jnp.float32))

    def baseline(length: int) -> Metrics:
        begins, q = np.eye(length + 1)[0], np.zeros((length + 1, len(symbols)))
        for t in range(length + 1):  # begins[t]: a string does at t
            for share, row, size in zip(p, table, sizes):
                for i, symbol in enumerate(row[:size][: length + 1 - t]):
                    q[t + i, symbol] += share * begins[t]
                if t + size <= length:
                    begins[t + size] += share * begins[t]
        q = q[1:].mean(axis=0)
        return {"loss": float(-q @ np.log(q)), "accuracy": float(q.max())}

    spec = Spec(Tokens(len(symbols)), Classes(len(symbols), per_step=True))
    return LetterStream("letter_stream", spec, sample, baseline, tokens=symbols, classes=symbols)


@dataclass(frozen=True, eq=False)
class LetterStream(Task):
    """The task of `letter_stream`; of letters it has the loss of each one, too."""

    def _apart(self) -> Sequence[str]:
        return self.classes if len(self.classes) < 10 else ()

    def score(self, y_hat: jax.Array, batch: Batch) -> Metrics:
        """loss, accuracy, sequence_accuracy, and of few symbols the loss where each is due."""
        metrics = super().score(y_hat, batch)
        losses = self.spec.outputs.loss(y_hat.astype(jnp.float32), jnp.asarray(batch.y))
        return metrics | {
            name: mean(losses, weights.astype(losses.dtype))
            for name, weights in self._weights(batch).items()
        }

    def weights(self, batch: Batch) -> Metrics:
        return super().weights(batch) | {
            name: jnp.sum(weights) for name, weights in self._weights(batch).items()
        }

    def _weights(self, batch: Batch) -> dict[str, jax.Array]:
        y, mask = jnp.asarray(batch.y), jnp.asarray(batch.mask)
        return {f"loss_{s}": jnp.where(y == i, mask, 0) for i, s in enumerate(self._apart())}
