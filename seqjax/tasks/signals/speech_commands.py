"""Speech Commands (arXiv:1804.03209): which word was spoken in a second.

    input    form="raw": the pressure in [-1, 1] at 16 kHz                 T = 16000, D = 1
             form="mfcc": 20 coefficients of 64 mel bands, every 100 points of 200   T = 161, D = 20
    target   the word                                                      one per sequence

words="all" are 35, "commands" the ten of SC10, "digits" the ten of SC09. What is shorter than a
second ends in silence. Coefficients are less the mean and over the standard deviation of the first
2,000 training recordings, as in arXiv:2005.08926, which cut SC10 into parts of its own; here the
parts are those of the lists that come with the data.

Baseline: the frequencies of the words.
Test accuracy in the literature: 35 words raw S4 0.961 (2206.11893); SC10, in parts of its own, S4
raw 0.983 and MFCC 0.940 (2111.00396).
"""

from typing import Annotated, Any, Literal

import numpy as np

from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.data.sets.speech import COMMANDS, DIGITS, RATE, WORDS
from seqjax.data.sound import log_mel, mfcc
from seqjax.tasks.records import Encoded, RecordTask, from_records, moments
from seqjax.tasks.task import Classes, Features, Spec

COUNT, POINTS, HOP, MELS = 20, 200, 100, 64
DATA = {"all": ("speech_commands", WORDS), "commands": ("sc10", COMMANDS),
        "digits": ("sc09", DIGITS)}  # fmt: skip


def speech_commands(
    *,
    words: Literal["all", "commands", "digits"] = "all",
    form: Literal["raw", "mfcc"] = "raw",
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The word of a recording.

    workers: processes that read the recordings ahead.
    """
    name, names = DATA[words]
    data = prepared(name)
    make = pressure if form == "raw" else coefficients
    mean, deviation = (0, 1) if form == "raw" else moments(
        data.source("train"), lambda one: coefficients(one["sound"]))  # fmt: skip

    def encode(example: Any, length: int) -> Encoded:
        return {"x": (make(example["sound"]) - mean) / deviation, "y": example["word"]}

    width, steps = (1, RATE) if form == "raw" else (COUNT, 1 + RATE // HOP)
    return from_records(
        "speech_commands", Spec(Features(width), Classes(len(names), per_step=False)), data, encode,
        parts={part: part for part in ("train", "validation", "test")}, held_out=held_out,
        steps=steps, workers=workers, classes=names,
    )  # fmt: skip


def pressure(sound: np.ndarray) -> np.ndarray:
    """[16000, 1] in [-1, 1], ending in silence."""
    return np.pad(sound, (0, RATE - len(sound)))[:, None].astype(np.float32) / 2**15


def coefficients(sound: np.ndarray) -> np.ndarray:
    """[161, 20]."""
    m = log_mel(pressure(sound)[:, 0], RATE, points=POINTS, window=POINTS, hop=HOP, mels=MELS,
                decibels=False)  # fmt: skip
    return mfcc(m, COUNT)
