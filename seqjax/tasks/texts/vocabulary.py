"""Words of texts as tokens: the likeliest ones of what is trained on, and one for all others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

UNKNOWN = 0  # the token of a word that there is none for
WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[^\sa-z0-9]")


def plain_words(text: bytes) -> list[str]:
    """Words and marks in lower case, without <br />."""
    return WORD.findall(text.decode(errors="replace").lower().replace("<br />", " "))


class Vocabulary:
    """Token n + 1 is the word that is n-th in frequency, of equal ones in the order of letters."""

    def __init__(self, sequences: Iterable[Sequence[str]], size: int, least: int = 1):
        """size: with the token of unknown words; least: how often a word must be there."""
        counts = Counter(word for words in sequences for word in words)
        order = sorted(counts, key=lambda word: (-counts[word], word))
        self.words = ["<unk>", *(word for word in order[: size - 1] if counts[word] >= least)]
        self.place = {word: n for n, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Iterable[str]) -> np.ndarray:
        return np.array([self.place.get(word, UNKNOWN) for word in words], np.int32)
