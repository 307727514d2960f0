"""Sentences and their translations: Multi30k, IWSLT 2014, WMT 2014.

en, de, fr   bytes: the same sentence in each language; IWSLT and WMT have en and de
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import DataError, File, pick, read_text, reading

MULTI30K_HOME = "https://github.com/multi30k/dataset/tree/master/data/task1/raw"
WIT3 = "https://wit3.fbk.eu/2014-01"
STANFORD = "https://nlp.stanford.edu/projects/nmt/data/wmt14.en-de/"
IWSLT_TEST = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
SEGMENT = re.compile(r"<seg[^>]*>(.*?)</seg>", re.DOTALL)


def parallel(sides: Mapping[str, Sequence[str]], names: str) -> Iterator[Example]:
    """Line n of each language together. Raises DataError where one has more."""
    counts = {language: len(lines) for language, lines in sides.items()}
    if len(set(counts.values())) != 1:
        shown = ", ".join(f"{count} in {language}" for language, count in counts.items())
        raise DataError(f"the lines of {names} are no translations of each other: {shown}")
    return (dict(zip(sides, lines)) for lines in zip(*sides.values()))


def read_lines(path: Path) -> list[str]:
    """The lines of a text, stripped. Raises DataError."""
    text = read_text(path)
    with reading(path, "lines of sentences"):
        if not text.endswith("\n"):
            raise EOFError("its last line does not end")
    return [line.strip() for line in text.split("\n")[:-1]]


def of_files(languages: Sequence[str], paths: Paths) -> Splits:
    """A file for each split and language, SPLIT.LANGUAGE its role."""
    splits = dict.fromkeys(role.rpartition(".")[0] for role in paths)
    return {
        split: parallel(
            {one: read_lines(paths[f"{split}.{one}"][0]) for one in languages},
            ", ".join(str(paths[f"{split}.{one}"][0]) for one in languages),
        )
        for split in splits
    }


def iwslt(paths: Paths) -> Splits:
    """Of an archive: the lines of talks, without titles and descriptions, of which every 23rd is
    validated on, as fairseq has it; and the segments of five sets to test, in XML."""
    (path,) = paths["archive"]
    train = {one: f"train.tags.de-en.{one}" for one in ("de", "en")}
    test = {one: [f"IWSLT14.{part}.de-en.{one}.xml" for part in IWSLT_TEST] for one in train}
    content = pick(path, [*train.values(), *test["de"], *test["en"]])
    with reading(path, "an archive of IWSLT 2014"):
        texts = {name: text.decode() for name, text in content.items()}
    lines = {one: [line.strip() for line in texts[name].splitlines()
                   if not line.lstrip().startswith("<")]
             for one, name in train.items()}  # fmt: skip
    segments = {one: [unescape(found.strip()) for name in names
                      for found in SEGMENT.findall(texts[name])]
                for one, names in test.items()}  # fmt: skip
    pairs = list(parallel(lines, f"train.tags of {path}"))
    return {
        "train": (pair for n, pair in enumerate(pairs, 1) if n % 23),
        "validation": pairs[22::23],
        "test": parallel(segments, f"the XML of {path}"),
    }


def features(*languages: str) -> Callable[[], Mapping[str, Any]]:
    def made() -> Mapping[str, Any]:
        from seqjax.data.records import tfds

        return dict.fromkeys(languages, tfds().features.Text())

    return made


def _files(pattern: str, parts: Mapping[str, str], languages: Sequence[str], origin: str):
    return {f"{split}.{one}": File(pattern.format(name, one), None, origin)
            for split, name in parts.items() for one in languages}  # fmt: skip


THREE, TWO = ("en", "de", "fr"), ("en", "de")
MULTI30K_PARTS = {"train": "train", "validation": "val", "test": "test_2016_flickr",
                  "test_2017": "test_2017_flickr"}  # fmt: skip
WMT_PARTS = {"train": "train", "validation": "newstest2013", "test": "newstest2014"}

TRANSLATIONS = (
    Dataset("multi30k", "Multi30k", "1605.00459", "CC BY-NC-SA 4.0", features(*THREE), tuple(
        Layout("full", _files(f"multi30k/{{}}.{{}}{suffix}", MULTI30K_PARTS, THREE, MULTI30K_HOME),
               partial(of_files, THREE)) for suffix in (".gz", "")
    )),
    Dataset("iwslt14", "IWSLT 2014, German and English", "Cettolo et al. 2014", "CC BY-NC-ND 4.0",
            features(*TWO),
            (Layout("full", {"archive": File("iwslt14/de-en.tgz", None, WIT3)}, iwslt),)),
    Dataset("wmt14", "WMT 2014, German and English", "Bojar et al. 2014", "not stated",
            features(*TWO),
            (Layout("full", _files("wmt14/{}.{}", WMT_PARTS, TWO, STANFORD),
                    partial(of_files, TWO)),)),
)  # fmt: skip
