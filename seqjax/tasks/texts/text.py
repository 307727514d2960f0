"""Text as bytes: reading files, holding a part out, and what compressors make of it.

Nothing here knows about models; `language` turns a `Text` into batches.
"""

import gzip
import lzma
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Not the library itself: its tests, and what is installed beside it.
NOT_STDLIB = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages"})
HELD_OUT_AT_MOST = 500_000


class Text(NamedTuple):
    """Training and held-out tokens, and for each whether a file, a document, begins there."""

    train: np.ndarray  # uint8 [N], of bytes; of words int32
    validation: np.ndarray  # [M]
    train_starts: np.ndarray  # bool [N]
    validation_starts: np.ndarray  # bool [M]


class Compression(NamedTuple):
    """Bits per held-out byte of one compressor."""

    alone: float  # 8 size(validation) / M
    given: float  # 8 (size(train + validation) - size(train)) / M


def read_files(
    path: str | Path, glob: str = "**/*", seed: int = 0, exclude: Iterable[str] = ()
) -> list[bytes]:
    """The contents of a file, or of the files of a folder that match `glob`, shuffled.

    The order sorts hashes of (seed, relative path): it is the same on every machine, and a file
    that comes or goes does not move the others.  Empty files and exact copies are left out, so
    that a copy of a held-out file is not trained on; so are hidden files and folders, and the
    folders named in `exclude`.
    """
    root, excluded = Path(path).expanduser(), frozenset(exclude)

    def wanted(parts: tuple[str, ...]) -> bool:
        return excluded.isdisjoint(parts) and not any(part.startswith(".") for part in parts)

    if root.is_file():
        files = [root]
    elif root.is_dir():
        files = [p for p in root.glob(glob) if p.is_file() and wanted(p.relative_to(root).parts)]
    else:
        raise ValueError(f"no text at {root}: there is no such file or folder")
    names = {p.relative_to(root).as_posix(): p for p in files}
    order = sorted(names, key=lambda name: sha256(f"{seed}/{name}".encode()).digest())
    contents = dict.fromkeys(names[name].read_bytes() for name in order)
    contents.pop(b"", None)
    if not contents:
        what = "the file is empty" if root.is_file() else f"no file with text matches {glob!r}"
        raise ValueError(f"no text at {root}: {what}")
    return list(contents)


def split_text(files: list[bytes], held_out: int | None = None) -> Text:
    """Join the files and hold out the first `held_out` bytes (None: a tenth, at most 500 kB).

    The cut may fall inside a file; no byte is on both sides.
    """
    whole = np.frombuffer(b"".join(files), np.uint8)
    cut = min(len(whole) // 10, HELD_OUT_AT_MOST) if held_out is None else held_out
    if not 0 <= cut < len(whole):
        raise ValueError(
            f"held_out={held_out} leaves nothing to train on: the text has {len(whole)} bytes"
        )
    starts = np.zeros(len(whole), bool)
    starts[np.cumsum([0] + [len(file) for file in files[:-1]])] = True
    starts[cut] = True
    return Text(whole[cut:], whole[:cut], starts[cut:], starts[:cut])


def joined(train: list[Any], held_out: list[Any]) -> Text:
    """Documents one after the other: bytes, or arrays of tokens."""
    sides = [[_tokens(one) for one in documents if len(one)] for documents in (train, held_out)]
    starts = [np.zeros(sum(map(len, side)), bool) for side in sides]
    for marks, side in zip(starts, sides):
        marks[np.cumsum([0, *map(len, side[:-1])])[: len(side)]] = True
    whole = [np.concatenate(side) if side else np.zeros(0, np.uint8) for side in sides]
    return Text(*whole, *starts)


def _tokens(document: Any) -> np.ndarray:
    return np.frombuffer(document, np.uint8) if isinstance(document, bytes) else document


def stdlib_text(seed: int = 0, glob: str = "**/*.py", held_out: int | None = None) -> Text:
    """Source of the running interpreter's standard library, without its tests."""
    folder = sysconfig.get_paths()["stdlib"]
    return split_text(read_files(folder, glob, seed, NOT_STDLIB), held_out)


def compression_baselines(train: np.ndarray, validation: np.ndarray) -> dict[str, Compression]:
    """Bits per held-out byte of `gzip -9` and `xz -9`, alone and given the training text.

    Given means the growth of the compressed text when the held-out bytes are appended to it.
    gzip looks back 32 KiB, so it can use only the end of the training text; xz gets a dictionary
    that spans all of it.
    """
    if not len(validation):
        raise ValueError("compression_baselines needs held-out bytes: the validation text is empty")
    train_bytes, validation_bytes = bytes(train), bytes(validation)
    texts = (validation_bytes, train_bytes, train_bytes + validation_bytes)
    # What preset 9 means, but for its 64 MiB dictionary: one of the text's size finds the same
    # matches, and needs memory in proportion to the text.
    dict_size = min(max(len(texts[-1]), 4096), 1536 * 2**20)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": dict_size}]
    compressors = {
        "gzip -9": lambda text: gzip.compress(text, 9),
        "xz -9": lambda text: lzma.compress(text, filters=filters),
    }
    jobs = [(compress, text) for compress in compressors.values() for text in texts]
    with ThreadPoolExecutor(2) as pool:  # zlib and lzma release the interpreter lock
        sizes = list(pool.map(lambda job: len(job[0](job[1])), jobs))
    bits = 8 * np.array(sizes).reshape(-1, 3) / len(validation_bytes)
    return {
        name: Compression(float(alone), float(both - first))
        for name, (alone, first, both) in zip(compressors, bits, strict=True)
    }
