"""Polyphonic music (arXiv:1206.6392, 1412.3555): which of 88 keys sound in the next frame.

    input    x_t = v_{t-1} in {0, 1}^88, x_1 = 0
    target   v_t, the keys of frame t                      one answer of 88 Bernoullis per frame

dataset="jsb" (229 + 76 + 77 chorales), "nottingham", "musedata", "piano_midi", in the published
parts. The loss is the frame NLL in nats: the sum over the keys, in the mean over all frames of the
part, the first of each piece among them; so is the accuracy TP / (TP + FP + FN).

frames cuts the training pieces into segments of at most so many, each from a fresh state: those of
musedata have up to 4,273. What is held out stays whole.

Baseline: the frequency of each key.
Test frame NLL in the literature: RNN-RBM jsb 6.27, nottingham 2.39, musedata 6.01, piano_midi 7.09
(1206.6392); GRU 8.54, 3.23, 5.99, 8.82 (1412.3555); TCN jsb 8.10, nottingham 3.07 (1803.01271).
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from seqjax.answers import Bernoullis
from seqjax.core.ranges import Count, Range
from seqjax.data import prepared
from seqjax.data.sets.polymusic import KEYS
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Features, Spec

PARTS = ("train", "validation", "test")


class Segments(Sequence[Any]):
    """Pieces cut into segments of at most `frames`, each of which is read by itself."""

    def __init__(self, pieces: Sequence[Any], frames: int):
        self.pieces, self.frames = pieces, frames
        self.places = [(i, start) for i, piece in enumerate(pieces)
                       for start in range(0, len(piece["roll"]), frames)]  # fmt: skip

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        piece, start = self.places[place]
        roll = self.pieces[piece]["roll"]
        segment = {"roll": roll[start : start + self.frames]}
        return segment | ({"before": roll[start - 1]} if start else {})


def polyphonic(
    *,
    dataset: Literal["jsb", "nottingham", "musedata", "piano_midi"] = "jsb",
    frames: Count | None = None,
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The keys of the next frame.

    frames: of the segments that training pieces are cut into; None: they stay whole.
    workers: processes that read the pieces ahead.
    """
    data = prepared(dataset)
    trained, *apart = (int(data.source(part)[0]["longest"]) for part in PARTS)
    whole = max(apart)  # of either part: a run is scored on both
    if frames is None or frames >= trained:
        frames = whole = max(trained, whole)  # one length of batches for all

    def encode(example: Any, length: int) -> Encoded:
        y = example["roll"].astype(np.float32)
        before = example.get("before", np.zeros(KEYS)).astype(np.float32)
        return {"x": np.concatenate([before[None], y[:-1]]), "y": y}

    def cut(source: Sequence[Any]) -> Sequence[Any]:
        return Segments(list(source), frames)

    return from_records(
        "polyphonic", Spec(Features(KEYS), Bernoullis(KEYS, per_step=True)), data, encode,
        parts={part: part for part in PARTS}, held_out=held_out,
        steps=frames, whole=whole, cut=cut, ragged=True, workers=workers,
    )  # fmt: skip
