"""IMDb (Maas et al. 2011): is a review of a film good or bad?

    input    x_t = word t, or byte t, of the first `length` ones      0.5 of the reviews are good
    target   0: bad, 1: good                                          one class per sequence

`imdb` has words, in lower case, marks too, of the `vocabulary` that the reviews trained on have;
`lra_text` bytes, T = 4096: the Text task of Long Range Arena (arXiv:2011.04006), which has no
validation split of its own. Shorter reviews are padding behind their ends.

Validation is on the last tenth of what is trained on, held_out="test" on reviews of other films.
With the full archive there are 25,000 + 25,000 of them, else a subset, 5,000 + 5,000: a line at the
beginning of a run has which.

Baseline: the frequencies of the labels, accuracy 0.5.
Test accuracy of bytes in the literature, of all reviews: Transformer 0.6427 (2011.04006), S4 0.8682
(2111.00396), Mega 0.9043 (2209.10655).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np

from seqjax.core.ranges import Count, Range
from seqjax.data import prepared
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Classes, Spec, Tokens
from seqjax.tasks.texts.language import BYTES
from seqjax.tasks.texts.vocabulary import Vocabulary, plain_words

PARTS = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}


def imdb(
    *,
    vocabulary: Annotated[int, Range(2)] = 10_000,
    steps: Count = 256,
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The sentiment of a review by its words.

    vocabulary: the most frequent words, and a token for all others.
    steps: the words that are read, the first ones; the default length.
    workers: processes that read ahead.
    """
    data = prepared("imdb")
    known = Vocabulary(
        (plain_words(example["text"]) for example in data.source(PARTS["train"])), vocabulary
    )

    def encode(example: Any, length: int) -> Encoded:
        words = plain_words(example["text"])[:length] or ["<unk>"]
        return {"x": known.encode(words), "y": example["label"]}

    spec = Spec(Tokens(len(known)), Classes(2, per_step=False))
    return from_records(
        "imdb", spec, data, encode, parts=PARTS, held_out=held_out, steps=steps, ragged=True,
        workers=workers, tokens=known.words, classes=("bad", "good"),
    )  # fmt: skip


def lra_text(
    *,
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The sentiment of a review by its bytes."""

    def encode(example: Any, length: int) -> Encoded:
        text = np.frombuffer(example["text"][:length] or b"\n", np.uint8)
        return {"x": text, "y": example["label"]}

    spec = Spec(Tokens(256), Classes(2, per_step=False))
    return from_records(
        "lra_text", spec, prepared("imdb"), encode, parts=PARTS, held_out=held_out, steps=4096,
        ragged=True, workers=workers, tokens=BYTES, classes=("bad", "good"),
    )  # fmt: skip
