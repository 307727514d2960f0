"""Nucleotide language modelling (arXiv:2306.15794): the next base of a genome.

    x_t = base t of A C G T N      y_t = base t + 1      `bits` per base beside the loss

Letters in lower case, which mask repeats, are as those in upper case; N, and what stands for
several bases, is read, and is no target. `seqjax.tasks.texts.language` has the orders in which
batches come, and validation over the whole of what is held out.

data      to train on / validate on / test
ecoli     the first 90 % of its one chromosome, 4,639,675 bases / then 5 % / then 5 %
hg38      intervals of a BED file, as they were split; or chromosomes / the 7th / the 8th and 9th

Baseline: the frequencies of the bases, 2.00 bits on E. coli, perplexity 4.0.
Length generalisation: evaluate with longer windows, or with a carried state.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from seqjax.data import prepared
from seqjax.tasks.texts.char_lm import spelling_of
from seqjax.tasks.texts.language import LanguageModel, Order, language_model
from seqjax.tasks.texts.text import joined

BASES = b"ACGTN"
UNKNOWN = BASES.index(b"N")
PLACES = np.full(256, UNKNOWN, np.uint8)  # of each letter among the bases
for _n, _letter in enumerate(BASES[:4]):
    PLACES[[_letter, _letter | 32]] = _n  # 32: in lower case


def dna(
    *,
    data: Literal["ecoli", "hg38"] = "ecoli",
    held_out: Literal["validation", "test"] = "validation",
    order: Order = "windows",
    reset_at_files: bool = False,
) -> LanguageModel:
    """Predict the next base.

    data: a genome.
    held_out: which split is scored.
    order: shuffled windows, contiguous streams with a carried state, or sequences packed into rows.
    reset_at_files: the state is reset at the beginning of each chromosome or interval.
    """
    found = prepared(data)
    train, apart = (
        [PLACES[np.frombuffer(e["sequence"], np.uint8)] for e in found.source(part)]
        for part in ("train", held_out)
    )
    return language_model(
        "dna", joined(train, apart), len(BASES), unit="bits", spelling=spelling_of(BASES),
        order=order, reset_at_files=reset_at_files, before=UNKNOWN, uncounted=UNKNOWN,
    )  # fmt: skip
