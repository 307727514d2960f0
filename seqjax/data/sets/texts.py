"""Texts to be modelled: Penn Treebank, WikiText, enwik8, text8, Shakespeare, TinyStories, PG-19.

    text   bytes: a document

A document is an article of WikiText, a story, a book; Penn Treebank, Wikipedia as it is cut for
compression, and Shakespeare have one per split. Joined, the documents of a split are its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import File, pick, read, reading

PARTS = ("train", "validation", "test")
MIKOLOV = "https://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz"
MERITY = "https://huggingface.co/datasets/Salesforce/wikitext"
MAHONEY = "http://mattmahoney.net/dc/"
KARPATHY = "https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare"
ELDAN = "https://huggingface.co/datasets/roneneldan/TinyStories"
PG19_HOME = "https://github.com/google-deepmind/pg19"
END = b"<|endoftext|>"
# a title between blank lines: of the headings with one = those of articles
ARTICLE = re.compile(rb"(?m)^ ?\n(?= = [^=\n].* = \n ?\n)")


def features() -> Mapping[str, Any]:
    from seqjax.data.records import tfds

    return {"text": tfds().features.Text()}


def examples(documents: Iterable[bytes]) -> Iterator[Example]:
    return ({"text": document} for document in documents)


def whole(text: bytes) -> list[bytes]:
    """All of a text of lines as one document."""
    _check_end(text, b"\n")
    return [text]


def articles(text: bytes) -> list[bytes]:
    """The articles of WikiText, each from the blank line above its title on."""
    _check_end(text, b"\n")
    starts = [found.start() for found in ARTICLE.finditer(text)]
    if not starts or text[: starts[0]].strip():
        starts.insert(0, 0)
    starts[0] = 0
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)])]


def stories(text: bytes) -> list[bytes]:
    """What stands between marks of the end of a text, a blank line after each; what stands behind
    the last mark is left out."""
    return [story.strip() + b"\n\n" for story in text.split(END)[:-1] if story.strip()]


def all_stories(text: bytes) -> list[bytes]:
    """Of a text that ends with such a mark."""
    _check_end(text.rstrip(), END)
    return stories(text)


def _check_end(text: bytes, end: bytes) -> None:
    if not text.endswith(end):
        raise EOFError(f"it does not end with {end.decode()!r}")


def of_files(cut: Callable[[bytes], list[bytes]], paths: Paths) -> Splits:
    """One file for each split, its role."""
    splits = {}
    for part, (path,) in paths.items():
        text = read(path)
        with reading(path, "a text"):
            splits[part] = examples(cut(text))
    return splits


def of_archive(
    cut: Callable[[bytes], list[bytes]], names: Mapping[str, str], paths: Paths
) -> Splits:
    """An archive with a file for each split, and other splits in files of their own."""
    (archive,) = paths["archive"]
    beside = {part: found for part, found in paths.items() if part != "archive"}
    texts = pick(archive, names.values())
    with reading(archive, "an archive of texts"):
        here = {part: examples(cut(texts[name])) for part, name in names.items()}
    return {**here, **of_files(cut, beside)}


def shared_out(shares: tuple[int, int], size: int | None, paths: Paths) -> Splits:
    """One text, cut into `shares` percent to train on and to validate on, and the rest to test."""
    (path,) = paths["text"]
    text = pick(path, [path.stem])[path.stem] if path.suffix == ".zip" else read(path)
    with reading(path, "the whole text"):
        if size is not None and len(text) != size:
            raise EOFError(f"it has {len(text)} of {size} bytes")
    ends = [0, *(len(text) * n // 100 for n in (shares[0], sum(shares))), len(text)]
    return {part: examples([text[a:b]]) for part, a, b in zip(PARTS, ends, ends[1:])}


def sample_of_stories(paths: Paths) -> Splits:
    """The last tenth is held out; the story that the end of the file cuts is left out."""
    (path,) = paths["text"]
    found = stories(read(path))
    with reading(path, f"stories with {END.decode()} between them"):
        if len(found) < 2:
            raise ValueError(f"it has {len(found)} of them")
    n = len(found) - max(1, len(found) // 10)
    return {"train": examples(found[:n]), "validation": examples(found[n:])}


def books(paths: Paths) -> Splits:
    """A file is a book; read one by one."""

    def of(found: list[Path]) -> Iterator[bytes]:
        return (read(path) for path in found)

    return {part: examples(of(paths[part])) for part in PARTS}


def _penn() -> tuple[Layout, ...]:
    names = {part: f"ptb.{part[:5]}.txt" for part in PARTS}
    here = "https://github.com/timbmg/RNNLM/tree/master/data"
    read_archive = partial(of_archive, whole, names)
    plain = {part: File(f"ptb/{name}", None, MIKOLOV) for part, name in names.items()}
    return (
        Layout("zip", {"archive": File("ptb/ptb.zip", 1983463, here)}, read_archive),
        Layout("tgz", {"archive": File("ptb/simple-examples.tgz", 34869662, MIKOLOV)},
               read_archive),
        Layout("plain", plain, partial(of_files, whole)),
    )  # fmt: skip


def _wikitext(size: int) -> tuple[Layout, ...]:
    folder = f"wikitext-{size}"
    names = {part: f"wiki.{part[:5]}.tokens" for part in PARTS}
    plain = {part: File(f"{folder}/{name}", None, MERITY) for part, name in names.items()}
    archive = {"archive": File(f"{folder}/{folder}-v1.zip", None, MERITY)}
    return (
        Layout("zip", archive, partial(of_archive, articles, names)),
        Layout("plain", plain, partial(of_files, articles)),
    )


def _compression(name: str, size: int) -> tuple[Layout, ...]:
    read_text = partial(shared_out, (90, 5), size)
    return (
        Layout("zip", {"text": File(f"{name}/{name}.zip", None, MAHONEY)}, read_text),
        Layout("plain", {"text": File(f"{name}/{name}", size, MAHONEY)}, read_text),
    )


WIKITEXT2_IN_PARTS = Layout(
    "parts",
    {"archive": File("wikitext-2/wikitext2.zip", 4068129, MERITY),
     "test": File("wikitext-2/test.txt.gz", 410674, MERITY)},
    partial(of_archive, articles, {"train": "train.txt", "validation": "valid.txt"}),
)  # fmt: skip

TEXTS = (
    Dataset("ptb", "Penn Treebank", "Mikolov et al. 2010", "LDC", features, _penn(), True),
    Dataset("wikitext2", "WikiText-2", "1609.07843", "CC BY-SA 3.0", features,
            (WIKITEXT2_IN_PARTS, *_wikitext(2)), True),
    Dataset("wikitext103", "WikiText-103", "1609.07843", "CC BY-SA 3.0", features, _wikitext(103),
            True),
    Dataset("enwik8", "enwik8", "Mahoney 2006", "CC BY-SA 3.0", features,
            _compression("enwik8", 100_000_000), True),
    Dataset("text8", "text8", "Mahoney 2006", "CC BY-SA 3.0", features,
            _compression("text8", 100_000_000), True),
    Dataset("shakespeare", "Tiny Shakespeare", "Karpathy 2015", "public domain", features,
            (Layout("full", {"text": File("tinyshakespeare/input.txt", 1115394, KARPATHY)},
                    partial(shared_out, (90, 5), None)),), True),
    Dataset("tinystories", "TinyStories", "2305.07759", "CDLA-Sharing-1.0", features,
            (Layout("full", {"train": File("tinystories/TinyStories-train.txt", None, ELDAN),
                             "validation": File("tinystories/TinyStories-valid.txt", None, ELDAN)},
                    partial(of_files, all_stories)),
             Layout("sample", {"text": File("tinystories-sample/tinystories_sample.txt", 2097152,
                                            ELDAN)}, sample_of_stories)), True),
    Dataset("pg19", "PG-19", "1911.05507", "Apache 2.0, of texts in the public domain", features,
            (Layout("full", {part: File(f"pg19/{part}/*.txt", None, PG19_HOME) for part in PARTS},
                    books),), True),
)  # fmt: skip
