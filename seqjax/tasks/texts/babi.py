"""bAbI (Weston et al. 2015, arXiv:1502.05698): questions on a story, in words.

    input    mary moved to the bathroom . where is mary ?
    target                                              bathroom     on each question mark

Twenty kinds of them, each of which takes something else: facts that lie far apart, counting, lists,
negation, time, places, motives. A story goes on after a question, and may have several; the facts
that support an answer are not shown. Words are those of all stories trained on, in lower case; an
answer of several words, as `milk,apple` or `s,e`, is one class; the DNC (Nature 2016), which reads
the same words, writes them one after the other.

Validation is on the last tenth of the stories to train on, held_out="test" on those to test.

Baseline: the frequencies of the answers. A kind counts as solved from 95 % right on.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np

from seqjax.answers import Classes
from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Spec, Tokens
from seqjax.tasks.texts.vocabulary import Vocabulary, plain_words

TRAIN, VALIDATION = "[:90%]", "[90%:]"


def babi(
    *,
    kinds: tuple[Annotated[int, Range(1, 20)], ...] = tuple(range(1, 21)),
    questions: Literal["1k", "10k"] = "10k",
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The answers to the questions of each story.

    kinds: numbers of the tasks of the paper, which are trained on together.
    questions: to train on, of each kind.
    workers: processes that read ahead.
    """
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds are some of 1 to 20, each once, got {list(kinds)}")
    data = prepared("babi" if questions == "1k" else "babi_10k")
    parts = {
        part: "+".join(f"qa{n}_{split}" for n in kinds)
        for part, split in {"train": f"train{TRAIN}", "validation": f"train{VALIDATION}",
                            "test": "test"}.items()
    }  # fmt: skip
    source = {part: data.source(split) for part, split in parts.items()}
    known = Vocabulary((plain_words(one["text"]) for one in source["train"]), 1_000_000)
    answers = Vocabulary(
        (one["answers"].decode().split("\n") for one in source["train"]), 1_000_000
    )
    mark = known.place["?"]

    def encode(example: Any, length: int) -> Encoded:
        del length
        x = known.encode(plain_words(example["text"]))
        questions = x == mark
        y = np.zeros(len(x), np.int32)
        y[questions] = answers.encode(example["answers"].decode().split("\n"))
        return {"x": x, "y": y, "mask": questions.astype(np.float32)}

    def longest(part: str) -> int:
        return max(len(plain_words(one["text"])) for one in source[part])

    spec = Spec(Tokens(len(known)), Classes(len(answers), per_step=True))
    return from_records(
        "babi", spec, data, encode, parts=parts, held_out=held_out, steps=longest("train"),
        whole=max(longest("train"), longest(held_out)), ragged=True, workers=workers,
        tokens=known.words, classes=answers.words,
    )  # fmt: skip
