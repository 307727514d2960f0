"""Translation (arXiv:1409.3215): a sentence is read whole, then written in another language.

    source   the sentence, then END     target in   BEGIN and the translation     out   it, then END

data        pairs to train on / validate on / test
multi30k    29,000 / 1,014 / 1,000 of flickr 2016; captions in en, de and fr (arXiv:1605.00459)
iwslt14     de and en, talks; every 23rd pair is validated on, five sets in one are the test
wmt14       de and en: the files of the Stanford NLP group, newstest2013 / newstest2014

Tokens are of one byte-pair encoding of both languages (arXiv:1508.07909), of bytes, so that all
texts have one; or bytes. It is made from the pairs to train on, by the package tokenizers. END is
token 0, BEGIN 1. What is longer than the batch is cut there. With `reversed_source` the tokens of
the source come from the last to the first, END behind them: its first words then are close to the
first that are written (1409.3215, sec. 3.3).

The loss is per token, END too. `seqjax eval RUN` writes the translations, each token the likeliest,
and prints BLEU as sacrebleu has it, of whole texts (the extra `metrics`).

Baseline: the frequencies of the tokens. Length generalisation: longer sentences.
BLEU in the literature, of multi30k en to de, flickr 2016: an attentive network 34.2 and 37.6
(1710.07177, 1910.03091, of lower-case words), the Transformer 38.5 (1910.03091).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from seqjax.answers import Pair, Paired
from seqjax.core.ranges import Count, Range
from seqjax.data import DataError, prepared
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Batch, Classes, Spec, Tokens
from seqjax.tasks.texts.language import BYTES, Spelling

Language = Literal["en", "de", "fr"]
END, BEGIN, FIRST = 0, 1, 2  # the first token of a text


def translation(
    *,
    data: Literal["multi30k", "iwslt14", "wmt14"] = "multi30k",
    source: Language = "en",
    target: Language = "de",
    units: Literal["pairs", "bytes"] = "pairs",
    vocabulary: Annotated[int, Range(300)] = 4000,
    steps: Count = 64,
    reversed_source: bool = False,
    held_out: Literal["validation", "test", "test_2017"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> TranslationTask:
    """Sentences of one language in another.

    data: pairs of sentences.
    source, target: the languages, which are two.
    units: tokens of a byte-pair encoding, or bytes.
    vocabulary: how many tokens that encoding has.
    steps: the longest sentence, in tokens; the default length.
    reversed_source: the source is read from its last token to its first.
    workers: processes that read ahead.
    """
    found = prepared(data)
    languages = tuple(found.dataset.features())
    if source == target or not {source, target} <= set(languages):
        raise ValueError(
            f"source and target must be two of {', '.join(languages)}, got {source} and {target}"
        )
    spelling = of_bytes()
    if units == "pairs":
        train = found.source("train")
        texts = (example[one].decode() for example in train for one in (source, target))
        spelling = byte_pairs(texts, vocabulary)

    def encode(example: Any, length: int) -> Encoded:
        x = ended(spelling.encode(example[source]), length, reversed_source)
        return {"x": x, "y": ended(spelling.encode(example[target]), length)}

    tokens = Tokens(len(spelling.names))
    spec = Spec(Pair(tokens, tokens, BEGIN), Classes(tokens.vocabulary, per_step=True))
    task = from_records(
        "translation", spec, found, encode,
        parts={part: part for part in found.splits}, held_out=held_out, steps=steps, ragged=True,
        collate=paired, workers=workers, tokens=spelling.names, classes=spelling.names,
    )  # fmt: skip
    return TranslationTask(
        **vars(task), spelling=spelling, languages=(source, target), reversed_source=reversed_source
    )


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TranslationTask(RecordTask):
    """The task of `translation`."""

    spelling: Spelling
    languages: tuple[str, str]
    reversed_source: bool

    def texts(self) -> tuple[list[bytes], list[str]]:
        """What is held out: sources, and their translations."""
        rows = [self.apart[n] for n in range(len(self.apart))]
        source, target = self.languages
        return [row[source] for row in rows], [row[target].decode() for row in rows]

    def prompt(self, source: bytes) -> np.ndarray:
        """The tokens of a source, as in batches."""
        return ended(self.spelling.encode(source), self.steps, self.reversed_source)


def ended(tokens: Sequence[int], length: int, backwards: bool = False) -> np.ndarray:
    """So many tokens at most, with END behind them if there is room."""
    tokens = tokens[:length][::-1] if backwards else tokens
    return np.array([*tokens, END], np.int32)[:length]


def paired(encoded: list[Encoded], length: int) -> Batch:
    """Sources and targets, filled up behind their ends."""
    source, target, y = np.zeros((3, len(encoded), length), np.int32)
    read, written = np.zeros((2, len(encoded), length), bool)
    for n, one in enumerate(encoded):
        source[n, : len(one["x"])], read[n, : len(one["x"])] = one["x"], True
        y[n, : len(one["y"])], written[n, : len(one["y"])] = one["y"], True
    target[:, 0], target[:, 1:] = BEGIN, y[:, :-1]
    target = np.where(written, target, 0)
    return Batch(Paired(source, target, read), y, written.astype(np.float32), present=written)


def of_bytes() -> Spelling:
    def encode(text: bytes) -> list[int]:
        return [byte + FIRST for byte in text]

    def decode(tokens: Sequence[int]) -> bytes:
        return bytes(t - FIRST for t in before_end(tokens) if FIRST <= t < FIRST + 256)

    return Spelling(["</s>", "<s>", *BYTES], encode, decode)


def before_end(tokens: Sequence[int]) -> list[int]:
    """What stands before the first END."""
    tokens = list(tokens)
    return tokens[: tokens.index(END)] if END in tokens else tokens


def byte_pairs(texts: Iterable[str], size: int) -> Spelling:
    """A byte-pair encoding of so many tokens. Raises DataError without the package."""
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise DataError(
            f"units=pairs need the extra `data`: pip install 'seqjax[data]' ({error})"
        ) from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - FIRST, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    count = tokenizer.get_vocab_size()

    def encode(text: bytes) -> list[int]:
        return [n + FIRST for n in tokenizer.encode(text.decode(errors="replace")).ids]

    def decode(tokens: Sequence[int]) -> bytes:
        known = [int(t) - FIRST for t in before_end(tokens) if FIRST <= t < FIRST + count]
        return tokenizer.decode(known).removeprefix(" ").encode()

    names = ["</s>", "<s>", *(tokenizer.decode([n]) for n in range(count))]
    return Spelling(names, encode, decode)
