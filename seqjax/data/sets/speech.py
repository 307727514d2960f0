"""Speech Commands (Warden 2018, arXiv:1804.03209), version 0.02: a word, spoken in a second.

    sound  int16 [N], N at most 16,000, at 16 kHz
    word   0 .. , in alphabetical order

All 35 words, the ten commands of SC10 (arXiv:2005.08926) and the ten digits of SC09 are datasets of
the same files. Those that validation_list.txt and testing_list.txt name are these splits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from seqjax.data.dataset import Dataset, Layout, Paths, Splits
from seqjax.data.files import DataError, File, members, read, read_text, reading
from seqjax.data.sound import read_wav

ORIGIN = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
RATE = 16_000
COMMANDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
DIGITS = ("eight", "five", "four", "nine", "one", "seven", "six", "three", "two", "zero")
OTHERS = ("backward", "bed", "bird", "cat", "dog", "follow", "forward", "happy", "house", "learn",
          "marvin", "sheila", "tree", "visual", "wow")  # fmt: skip
WORDS = tuple(sorted((*COMMANDS, *DIGITS, *OTHERS)))
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}

Found = Iterable[tuple[Path, str, Callable[[], bytes]]]  # a file, word/name.wav in it, its bytes


def _split_of(lists: dict[str, tuple[Path, str]]) -> dict[str, str]:
    """By word/name.wav, the split that names it."""
    found: dict[str, str] = {}
    for split, (path, text) in lists.items():
        with reading(path, f"lines of word/name.wav, {LISTS[split]}"):
            names = text.split()
            odd = next((n for n in names if n.count("/") != 1 or not n.endswith(".wav")), None)
            if odd is not None or not names:
                raise ValueError(f"{odd or 'nothing'!r:.60} is not word/name.wav")
            found |= dict.fromkeys(names, split)
    return found


def _examples(found: Found, words: tuple[str, ...], part: str, lists: dict[str, str]):
    for path, name, content in found:
        word = name.partition("/")[0]
        if word in words and lists.get(name, "train") == part:
            raw = content()
            with reading(path, f"a recording, {name}"):
                sound = read_wav(raw, RATE)
                if len(sound) > RATE:
                    raise ValueError(f"it has {len(sound)} numbers, more than a second")
            yield {"sound": sound, "word": words.index(word)}


def folder_examples(paths: Paths, words: tuple[str, ...]) -> Splits:
    lists = _split_of({split: (paths[split][0], read_text(paths[split][0])) for split in LISTS})

    def found() -> Iterator[tuple[Path, str, Callable[[], bytes]]]:
        for path in paths["sounds"]:
            yield path, "/".join(path.parts[-2:]), partial(read, path)

    return {part: _examples(found(), words, part, lists) for part in ("train", *LISTS)}


def archive_examples(paths: Paths, words: tuple[str, ...]) -> Splits:
    """Of the .tar.gz, which has the lists after the first words: it is gone through four times."""
    (path,) = paths["archive"]
    texts = {}
    for name, content in members(path):
        split = next((s for s, one in LISTS.items() if name.removeprefix("./") == one), None)
        if split:
            with reading(path, f"a list, {name}"):
                texts[split] = (path, content.decode())
    if len(texts) < len(LISTS):
        raise DataError(
            f"{path} is not what it should be: it has no {' and '.join(LISTS.values())}"
        )
    split_of = _split_of(texts)

    def found() -> Iterator[tuple[Path, str, Callable[[], bytes]]]:
        for name, content in members(path):
            if name.endswith(".wav"):
                yield path, name.removeprefix("./"), lambda content=content: content

    return {part: _examples(found(), words, part, split_of) for part in ("train", *LISTS)}


def _speech(name: str, title: str, words: tuple[str, ...]) -> Dataset:
    def features():
        from seqjax.data.records import tfds

        f = tfds().features
        return {"sound": f.Tensor(shape=(None,), dtype=np.int16),
                "word": f.ClassLabel(names=words)}  # fmt: skip

    folder = {split: File(f"speech_commands/{one}", None, ORIGIN) for split, one in LISTS.items()}
    folder["sounds"] = File("speech_commands/[a-z]*/*.wav", None, ORIGIN)
    archive = File("speech_commands/speech_commands_v0.02.tar.gz", 2428923189, ORIGIN)
    return Dataset(
        name, title, "1804.03209", "CC BY 4.0", features,
        (Layout("folder", folder, partial(folder_examples, words=words)),
         Layout("archive", {"archive": archive}, partial(archive_examples, words=words))),
    )  # fmt: skip


SPEECH = (
    _speech("speech_commands", "Speech Commands, 35 words", WORDS),
    _speech("sc10", "Speech Commands, the ten commands of SC10", COMMANDS),
    _speech("sc09", "Speech Commands, the ten digits of SC09", DIGITS),
)
