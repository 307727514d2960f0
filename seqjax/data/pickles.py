"""Pickles from outside, read as numbers, strings, lists and arrays of numpy, and as nothing else.

A pickle may name any function and have it called; what it names here is looked up in a list of the
few that arrays consist of, and all others are refused before anything runs.
"""

from __future__ import annotations

import codecs
import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from seqjax.data.files import reading

WRONG = (pickle.UnpicklingError, TypeError, AttributeError, OverflowError, MemoryError)
RECONSTRUCT = np.zeros(0).__reduce__()[0]
FROM_BUFFER: Any = np.zeros(0).__reduce_ex__(5)[0]
KNOWN = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "numpy.core.multiarray._reconstruct": RECONSTRUCT,
    "numpy._core.multiarray._reconstruct": RECONSTRUCT,
    "numpy.core.numeric._frombuffer": FROM_BUFFER,
    "numpy._core.numeric._frombuffer": FROM_BUFFER,
    "_codecs.encode": codecs.encode,
}


class _Plain(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in KNOWN:
            raise ValueError(f"it names {name}, and should hold numbers only")
        return KNOWN[name]


def unpickled(file: BinaryIO) -> Any:
    """What a pickle of Python 2 or 3 holds. Raises ValueError."""
    try:
        return _Plain(file, encoding="latin1").load()
    except WRONG as error:
        raise ValueError(str(error)) from error


def read_npz(path: Path) -> Iterator[tuple[str, Any]]:
    """Names and arrays of a .npz file, of objects too. Raises DataError, also in the middle."""
    with reading(path, "a .npz file"):
        if not path.stat().st_size:
            raise EOFError("it has no bytes")
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                file = io.BytesIO(archive.read(name))
                yield name.removesuffix(".npy"), _array(file)


def _array(file: BinaryIO) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0,
              (2, 0): np.lib.format.read_array_header_2_0}  # fmt: skip
    if version not in header:
        raise ValueError(f"it is of version {version}, and should be of 1 or 2")
    shape, _, dtype = header[version](file)
    if not dtype.hasobject:
        file.seek(0)
        return np.load(file, allow_pickle=False)
    array = unpickled(file)
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise ValueError("its pickle is not of the array that its head describes")
    return array
