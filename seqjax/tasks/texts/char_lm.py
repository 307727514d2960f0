"""Character and byte language modelling of any text, and of the texts of papers.

Each step shows a character, the next one is the target; `seqjax.tasks.texts.language` has the
orders in which batches come, and validation:

    x_t = character t      y_t = character t + 1      `bits` per character beside the loss

data                 tokens                               train / validation / test
ptb                  its 50 characters, a space is `_`,   5,017,482 / 393,042 / 442,423
                     a newline ends each sentence
text8                its 27 characters                    90 / 5 / 5 million
enwik8               bytes                                90 / 5 / 5 million
shakespeare          its 65 characters                    90 / 5 / 5 %
wikitext2, 103       bytes of the tokenised text          the articles as they were split
tinystories          bytes, a blank line after a story    the stories as they were split
pg19                 bytes, all held in memory            the books as they were split

Without `data` the text is a file or a folder, by bytes, V = 256: nothing is out of vocabulary.

Baseline: the frequencies of the training characters; about 4.5 bits per byte on Python source.
Compressors are the better yardstick: `text.compression_baselines`.
Length generalisation: evaluate with windows, or with a carried state, longer than the training T.
Test bits per character in the literature: ptb, an LSTM of 1,000 units 1.38, AWD-LSTM 1.175
(1803.08240); enwik8 AWD-LSTM 1.232 (1803.08240), Transformer-XL 0.99, and text8 1.08 (1901.02860).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np

from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.tasks.task import Classes, Spec, Tokens
from seqjax.tasks.texts.language import BYTES, LanguageModel, Order, Spelling, language_model
from seqjax.tasks.texts.text import Text, joined, read_files, split_text, stdlib_text

SPEC = Spec(Tokens(256), Classes(256, per_step=True))  # of a model of bytes, whatever the text
Data = Literal["ptb", "text8", "enwik8", "shakespeare", "wikitext2", "wikitext103", "tinystories",
               "pg19"]  # fmt: skip
OF_CHARACTERS = ("ptb", "text8", "shakespeare")  # tokens are the characters of the training text


def char_lm(
    *,
    data: Data | None = None,
    path: str | None = None,
    glob: str | None = None,
    seed: int = 0,
    held_out: Annotated[int, Range(0)] | Literal["validation", "test"] | None = None,
    order: Order = "windows",
    reset_at_files: bool = False,
) -> LanguageModel:
    """Predict the next character of a text: of `data`, of a file or folder, or (neither) of
    Python's own standard library.

    data: a text that papers report on.
    path: a file or folder; None: the source of the running interpreter's standard library.
    glob: which files of the folder; None: all of them, `**/*.py` for the standard library.
    seed: of the order of the files, hence of what is held out.
    held_out: of data "validation", which None means, or "test"; else bytes held out, the first
        ones, None: a tenth of the text, at most 500 kB.
    order: shuffled windows, contiguous streams with a carried state, or documents packed into rows.
    reset_at_files: the state is reset at the beginning of each file, or document of data.
    """
    if (data is not None) != (held_out in ("validation", "test")) and held_out is not None:
        needed = "validation or test" if data else "a number of bytes without data"
        raise ValueError(f"held_out must be {needed}, got {held_out!r}")
    symbols = bytes(range(256))
    if data is not None:
        if path is not None or glob is not None or seed:
            raise ValueError("path, glob and seed are of own files, without data")
        text = corpus(data, str(held_out or "validation"))
        if data in OF_CHARACTERS:
            text, symbols = by_character(text)
    else:
        cut = held_out if isinstance(held_out, int) else None
        if path is None:
            text = stdlib_text(seed, glob or "**/*.py", cut)
        else:
            text = split_text(read_files(path, glob or "**/*", seed), cut)
    newline = symbols.find(b"\n")
    return language_model(
        "char_lm", text, len(symbols), unit="bits", spelling=spelling_of(symbols), order=order,
        reset_at_files=reset_at_files, before=max(newline, 0),
    )  # fmt: skip


def corpus(data: str, held_out: str) -> Text:
    """The bytes of a dataset of documents. Raises DataError."""
    found = prepared(data)
    train, apart = (
        [_characters(data, example["text"]) for example in found.source(part)]
        for part in ("train", held_out)
    )
    return joined(train, apart)


def _characters(data: str, document: bytes) -> bytes:
    """As the papers have them: of Penn Treebank without the spaces around a sentence, and with `_`
    between its words."""
    if data != "ptb":
        return document
    lines = (line.strip().replace(b" ", b"_") for line in document.splitlines())
    return b"".join(line + b"\n" for line in lines)


def by_character(text: Text) -> tuple[Text, bytes]:
    """The text by its characters, numbered in their order, and these.

    Raises ValueError where one held out is not among those trained on.
    """
    symbols = np.unique(text.train)
    place = np.full(256, 255, np.uint8)
    place[symbols] = np.arange(len(symbols))
    if unknown := set(text.validation) - set(symbols):
        raise ValueError(f"characters {bytes(sorted(unknown))!r} are held out and not trained on")
    train, validation = place[text.train], place[text.validation]
    return text._replace(train=train, validation=validation), symbols.tobytes()


def spelling_of(symbols: bytes) -> Spelling:
    """Of tokens that are places in `symbols`."""

    def encode(text: bytes) -> list[int]:
        places = [symbols.find(one) for one in text]
        if -1 in places:
            strange = chr(text[places.index(-1)])
            raise ValueError(f"a prompt of {symbols.decode(errors='replace')!r}, got {strange!r}")
        return places

    def decode(tokens: Sequence[int]) -> bytes:
        """Bytes; "?" where a model that knows more tokens than these writes another."""
        return bytes(symbols[t] if t < len(symbols) else ord("?") for t in tokens)

    return Spelling([BYTES[one] for one in symbols], encode, decode)
