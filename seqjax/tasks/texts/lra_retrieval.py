"""Retrieval of Long Range Arena (arXiv:2011.04006): are two papers related?

    input    x_t = byte t of the first paper, a mark, the bytes of the second      T = 8001
    target   1: one cites the other, or both cite a third                          one per sequence

Of each paper the first (length - 1) / 2 bytes, 4000 by default; the mark is token 256. Shorter
papers lie closer together, padding is behind both.

The papers of Long Range Arena read each document by itself, with the same weights, and compare the
two vectors; here one model reads both, and has to carry the first one through the second: what it
scores is another number.

Baseline: the frequencies of the labels, accuracy 0.5.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np

from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Classes, Spec, Tokens
from seqjax.tasks.texts.language import BYTES

MARK, STEPS = 256, 4000


def lra_retrieval(
    *,
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """Whether two papers are related, by their bytes.

    workers: processes that read ahead.
    """

    def encode(example: Any, length: int) -> Encoded:
        each = (length - 1) // 2
        if each < 1:
            raise ValueError(f"lra_retrieval needs a length >= 3, got {length}")
        first, second = (
            np.frombuffer(example[name][:each], np.uint8).astype(np.int32)
            for name in ("text1", "text2")
        )
        return {"x": np.concatenate([first, [MARK], second]), "y": example["label"]}

    spec = Spec(Tokens(MARK + 1), Classes(2, per_step=False))
    return from_records(
        "lra_retrieval", spec, prepared("aan"), encode,
        parts={part: part for part in ("train", "validation", "test")}, held_out=held_out,
        steps=2 * STEPS + 1, ragged=True, workers=workers, tokens=[*BYTES, "|"],
        classes=("unrelated", "related"),
    )  # fmt: skip
