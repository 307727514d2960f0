"""Word language modelling: Penn Treebank (Mikolov et al. 2010) and WikiText (arXiv:1609.07843).

    x_t = word t      y_t = word t + 1      perplexity = exp(mean of -log p(word))

A line is its words and <eos>. The vocabulary is that of the training text, what is not in it <unk>.
`seqjax.tasks.texts.language` has the orders in which batches come, and validation, which carries
the state over the whole text and has each word, <eos> too, as a target exactly once: perplexity as
the papers count it, per word (they leave out the first one, which here follows an <eos>).

data            vocabulary     words to train on / validate on / test, each with its <eos>
ptb             10,000         929,589 / 73,760 / 82,430
wikitext2       33,278         2,088,628 / 217,646 / 245,569
wikitext103     267,735        103,227,021 / 217,646 / 245,569

Baseline: the frequencies of the training words.
Test perplexity in the literature: ptb, LSTM 114.5, medium 82.7, large 78.4 (1409.2329), AWD-LSTM
57.3, and wikitext2 65.8 (1708.02182); wikitext103, LSTM 48.7 (1612.04426), Transformer-XL 18.3
(1901.02860).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from seqjax.data import prepared
from seqjax.tasks.texts.language import LanguageModel, Order, Spelling, language_model
from seqjax.tasks.texts.text import joined

EOS, UNKNOWN = b"<eos>", b"<unk>"


def word_lm(
    *,
    data: Literal["ptb", "wikitext2", "wikitext103"] = "ptb",
    held_out: Literal["validation", "test"] = "validation",
    order: Order = "streams",
    reset_at_files: bool = False,
) -> LanguageModel:
    """Predict the next word.

    data: a text that papers report on.
    held_out: which split is scored.
    order: shuffled windows, contiguous streams with a carried state, or documents packed into rows.
    reset_at_files: the state is reset at the beginning of each document.
    """
    found = prepared(data)
    counts = Counter(word for e in found.source("train") for word in words(e["text"]))
    counts.setdefault(UNKNOWN, 0)
    vocabulary = sorted(counts, key=lambda word: (-counts[word], word))
    spelling = spelling_of(vocabulary)
    train, apart = (
        [np.array(spelling.encode(e["text"]), np.int32) for e in found.source(part)]
        for part in ("train", held_out)
    )
    return language_model(
        "word_lm", joined(train, apart), len(vocabulary), unit="perplexity", spelling=spelling,
        order=order, reset_at_files=reset_at_files, before=vocabulary.index(EOS),
    )  # fmt: skip


def words(text: bytes) -> Iterator[bytes]:
    """The words of each line, and <eos> at its end, also of an empty one."""
    lines = text.split(b"\n")
    for line in lines[:-1]:
        yield from line.split()
        yield EOS
    yield from lines[-1].split()


def spelling_of(vocabulary: list[bytes]) -> Spelling:
    place = {word: n for n, word in enumerate(vocabulary)}
    unknown = place[UNKNOWN]

    def encode(text: bytes) -> list[int]:
        return [place.get(word, unknown) for word in words(text)]

    def decode(tokens: Sequence[int]) -> bytes:
        """Words with spaces around them; <unk> where a model that knows more tokens writes one."""
        found = (vocabulary[t] if t < len(vocabulary) else UNKNOWN for t in tokens)
        return b"".join(b"\n" if word == EOS else b" " + word for word in found)

    return Spelling([word.decode(errors="replace") for word in vocabulary], encode, decode)
