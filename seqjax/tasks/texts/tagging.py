"""Tagging of sequences: the chunks of CoNLL-2000 (Tjong Kim Sang & Buchholz 2000).

    input    x_t = word t of a sentence                       He  reckons the  current  ...
    target   B-KIND, I-KIND or O, at every step               B-NP B-VP   B-NP I-NP     ...

Words are those of the sentences trained on, as they are written, but for those that are there once:
they, and others, are <unk>; digits in a row are one 0. `f1` is of whole chunks.

Validation is on the last 1,000 of the 8,936 sentences to train on, held_out="test" on the 2,012 to
test.

Baseline: the frequencies of the tags; its accuracy is that of the likeliest one.
F1 of the test sentences in the literature: by the part of speech alone 0.771 (the baseline of the
shared task), SVM 0.935 (Kudo & Matsumoto 2000), BI-LSTM-CRF 0.9446 (1508.01991).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import numpy as np

from seqjax.answers import Chunks
from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Spec, Tokens
from seqjax.tasks.texts.vocabulary import Vocabulary

PARTS = {"train": "train[:-1000]", "validation": "train[-1000:]", "test": "test"}
KINDS = "ADJP ADVP CONJP INTJ LST NP PP PRT SBAR UCP VP".split()
TAGS = ("O", *(f"{place}-{kind}" for kind in KINDS for place in "BI"))
LONGEST = 78  # words of a sentence
DIGITS = re.compile(r"[0-9]+")


def tagging(
    *,
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The chunk of each word.

    workers: processes that read ahead.
    """
    data = prepared("conll2000")
    sentences = [_words(example) for example in data.source(PARTS["train"])]
    known = Vocabulary(sentences, 1_000_000, least=2)
    place = {tag: n for n, tag in enumerate(TAGS)}

    def encode(example: Any, length: int) -> Encoded:
        del length
        y = np.array([place[tag] for tag in _split(example["chunks"])])
        return {"x": known.encode(_words(example)), "y": y}

    spec = Spec(Tokens(len(known)), Chunks(len(TAGS), per_step=True, tags=TAGS))
    return from_records(
        "tagging", spec, data, encode, parts=PARTS, held_out=held_out, steps=LONGEST, ragged=True,
        workers=workers, tokens=known.words, classes=TAGS,
    )  # fmt: skip


def _split(field: bytes) -> list[str]:
    return field.decode().split()


def _words(example: Any) -> list[str]:
    return [DIGITS.sub("0", word) for word in _split(example["words"])]
