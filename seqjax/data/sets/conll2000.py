"""CoNLL-2000 (Tjong Kim Sang & Buchholz 2000): sentences of the Wall Street Journal in chunks.

words    bytes: the words of a sentence, with spaces between them
pos      their parts of speech, by a tagger
chunks   their tags: B-NP begins a noun phrase, I-NP goes on with it, O is in no chunk
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import File, read_text, reading

ORIGIN = "https://www.cnts.ua.ac.be/conll2000/chunking/"
COLUMNS = ("words", "pos", "chunks")


def read_sentences(path: Path) -> Iterator[Example]:
    """A line for each word: it, its part of speech and its chunk; an empty one after a sentence."""
    text = read_text(path)
    with reading(path, "lines of word, part of speech and chunk"):
        if not text.endswith("\n"):
            raise EOFError("its last line does not end")
        sentence: list[list[str]] = []
        for n, line in enumerate([*text.split("\n")[:-1], ""], 1):
            fields = line.split()
            if len(fields) not in (0, 3) or fields and fields[2][:2] not in ("O", "B-", "I-"):
                raise ValueError(f"line {n} is {line[:60]!r}")
            if fields:
                sentence.append(fields)
            elif sentence:
                yield {name: " ".join(column) for name, column in zip(COLUMNS, zip(*sentence))}
                sentence = []


def sentences(paths: Paths) -> Splits:
    return {split: read_sentences(path) for split, (path,) in paths.items()}


def features() -> Mapping[str, Any]:
    from seqjax.data.records import tfds

    return dict.fromkeys(COLUMNS, tfds().features.Text())


def _files(suffix: str) -> dict[str, File]:
    sizes = {"train": 599156, "test": 136837}
    return {split: File(f"conll2000/{split}.txt{suffix}", size if suffix else None, ORIGIN)
            for split, size in sizes.items()}  # fmt: skip


CONLL2000 = Dataset(
    "conll2000", "CoNLL-2000, chunks", "Tjong Kim Sang & Buchholz 2000", "LDC", features,
    (Layout("full", _files(".gz"), sentences), Layout("full", _files(""), sentences)),
)  # fmt: skip
