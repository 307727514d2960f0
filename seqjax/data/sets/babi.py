"""bAbI (Weston et al. 2015, arXiv:1502.05698): questions on made-up stories, twenty kinds of them.

    text      bytes: the sentences and questions of a story in their order, a line for each
    answers   bytes: the answer to each question, a line for each; of lists all words, as milk,apple
    facts     bytes: the places in the text of what supports it, from 1, a line for each question

The splits are those of the tasks, `qa1_train`, `qa1_test` .. `qa20_test`. In the files a line has
its number in the story, which begins anew with 1, and that of a question has its answer and the
numbers of the facts behind tabs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import DataError, File, members, read, reading

ORIGIN = "http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz"
TASKS = (
    "single-supporting-fact two-supporting-facts three-supporting-facts two-arg-relations "
    "three-arg-relations yes-no-questions counting lists-sets simple-negation "
    "indefinite-knowledge basic-coreference conjunction compound-coreference time-reasoning "
    "basic-deduction basic-induction positional-reasoning size-reasoning path-finding "
    "agents-motivations"
).split()
FILES = {
    f"qa{n}_{name}_{part}.txt": f"qa{n}_{part}"
    for n, name in enumerate(TASKS, 1) for part in ("train", "test")
}  # fmt: skip
LINE = re.compile(r"(\d+) ([^\t]*)(?:\t([^\t]+)\t([\d ]+))?")


def stories(text: str) -> Iterator[Example]:
    """The stories of a file. Raises ValueError."""
    if not text.endswith("\n"):
        raise EOFError("its last line does not end")
    lines: list[str] = []
    answers: list[str] = []
    facts: list[str] = []
    for n, line in enumerate(text.splitlines(), 1):
        found = LINE.fullmatch(line)
        if found is None or (found[2].rstrip()[-1:] == "?") != (found[3] is not None):
            raise ValueError(f"line {n} is {line[:60]!r}")
        place, sentence, answer, support = found.groups()
        if place == "1" and lines:
            yield _story(lines, answers, facts)
            lines, answers, facts = [], [], []
        if int(place) != len(lines) + 1:
            raise ValueError(f"line {n} has the number {place} after {len(lines)}")
        if answer is not None:
            if not all(0 < int(fact) <= len(lines) for fact in support.split()):
                raise ValueError(f"line {n} has the facts {support}, of {len(lines)} lines before")
            answers.append(answer.strip())
            facts.append(" ".join(support.split()))
        lines.append(sentence.strip())
    yield _story(lines, answers, facts)


def _story(*columns: list[str]) -> Example:
    return dict(zip(("text", "answers", "facts"), map("\n".join, columns)))


def _splits(found: Iterable[tuple[Any, str, bytes]], where: Any) -> Splits:
    """Of (path, name of a file, its bytes)."""
    splits: dict[str, list[Example]] = {}
    for path, name, content in found:
        if name in FILES:
            with reading(path, f"{name}, numbered lines of stories"):
                splits[FILES[name]] = list(stories(content.decode()))
    if absent := [name for name, split in FILES.items() if split not in splits]:
        raise DataError(f"{where} is not what it should be: it has no {absent[0]}")
    return splits


def folder_examples(paths: Paths) -> Splits:
    files = [path for one in paths.values() for path in one]
    return _splits(((path, path.name, read(path)) for path in files), files[0].parent)


def archive_examples(paths: Paths, folder: str) -> Splits:
    (path,) = paths["archive"]
    found = ((path, where.name, content) for where, content in
             ((PurePosixPath(name), content) for name, content in members(path))
             if where.parent.name == folder)  # fmt: skip
    return _splits(found, path)


def features() -> Mapping[str, Any]:
    from seqjax.data.records import tfds

    return dict.fromkeys(("text", "answers", "facts"), tfds().features.Text())


def _babi(name: str, title: str, folder: str) -> Dataset:
    root = "babi/tasks_1-20_v1-2"
    plain = {part: File(f"{root}/{folder}/qa*_{part}.txt", None, ORIGIN)
             for part in ("train", "test")}  # fmt: skip
    layouts = (
        Layout("full", plain, folder_examples),
        Layout("archive", {"archive": File(f"{root}.tar.gz", None, ORIGIN)},
               partial(archive_examples, folder=folder)),
    )  # fmt: skip
    return Dataset(name, title, "1502.05698", "CC BY 3.0", features, layouts)


BABI = (
    _babi("babi", "bAbI, 1,000 questions of each kind", "en"),
    _babi("babi_10k", "bAbI, 10,000 questions of each kind", "en-10k"),
)
