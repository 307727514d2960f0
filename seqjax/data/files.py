"""Raw files of a dataset: where they lie, and one clear error for those that do not.

They are looked for in the folder that SEQJAX_DATA names (../shared/data where it is not set), each
at the path that its dataset defines.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError,
          ValueError, KeyError, IndexError, NotImplementedError)  # fmt: skip


class DataError(ValueError):
    """Files that are absent, or not what they should be."""


@dataclass(frozen=True)
class File:
    """One raw file: its path in the folder of data, its bytes, and where it comes from.

    A path with * in it stands for all files that match; `size` is of all of them.
    """

    path: str
    size: int | None  # bytes; None: they differ from release to release
    origin: str

    def __str__(self) -> str:
        return self.path if self.size is None else f"{self.path} ({_bytes(self.size)})"

    def find(self, folder: Path) -> list[Path]:
        """The files that are there, in order; empty ones and hidden ones too."""
        found = folder.glob(self.path) if "*" in self.path else [folder / self.path]
        return sorted(path for path in found if path.is_file())


def data_folder() -> Path:
    """SEQJAX_DATA, or ../shared/data beside the checkout where that is not set."""
    default = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return Path(os.environ.get("SEQJAX_DATA", default)).expanduser()


def data_path(name: str) -> Path:
    """The folder or file `name` of the data folder. Raises DataError."""
    path = data_folder() / name
    if not path.exists():
        raise DataError(f"no data {name!r} in {data_folder()}: set SEQJAX_DATA to the data folder")
    return path


def missing(name: str, layouts: Sequence[Sequence[File]]) -> DataError:
    """The error for a dataset none of whose layouts is there: what was looked for, and where."""
    folder = data_folder()
    shown = " or ".join(
        ", ".join(str(file) for file in files if not file.find(folder)) for files in layouts
    )
    origins = dict.fromkeys(file.origin for files in layouts for file in files)
    return DataError(
        f"no files of {name} in {folder}: looked for {shown}, from {'; '.join(origins)}; "
        "SEQJAX_DATA names the folder"
    )


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Whatever is wrong with the file, as one line; `kind` is what it should be."""
    try:
        yield
    except DataError:
        raise
    except BROKEN as error:
        size = path.stat().st_size if path.is_file() else 0
        cut = isinstance(error, EOFError | zlib.error) or "end" in str(error).lower()
        why = "is empty" if not size else "is truncated" if cut else "is not what it should be"
        found = str(error).strip("'\"").splitlines()[:1] or [type(error).__name__]
        raise DataError(f"{path} {why}, {kind}: {found[0]:.200}") from error


def read(path: Path) -> bytes:
    """The bytes of a file, unpacked where its name ends in .gz, .bz2 or .xz. Raises DataError."""
    unpack = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
    with reading(path, f"a {path.suffix or 'plain'} file"):
        raw = path.read_bytes()
        if not raw:
            raise EOFError("it has no bytes")
        content = unpack.get(path.suffix, bytes)(raw)
        if not content:
            raise EOFError("nothing is in it")
        if content[:100].lstrip().lower().startswith((b"<!doctype html", b"<html")):
            raise ValueError("it is a web page")
        return content


def read_text(path: Path) -> str:
    """The same, of text in UTF-8."""
    content = read(path)
    with reading(path, "text in UTF-8"):
        return content.decode()


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files in a .zip or a tar file, in its order, without what macOS adds.

    Raises DataError, also in the middle of it.
    """
    with reading(path, "an archive"):
        if not path.stat().st_size:
            raise EOFError("it has no bytes")
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if not name.endswith("/") and _wanted(name):
                        yield name, archive.read(name)
        else:
            with tarfile.open(path, "r|*") as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() else None
                    if file and _wanted(member.name):
                        yield member.name, file.read()


def pick(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """The files of an archive whose paths end with these names. Raises DataError."""
    wanted = list(names)
    found: dict[str, bytes] = {}
    for member, content in members(path):
        for name in wanted:
            if f"/{member}".endswith(f"/{name}"):
                found[name] = content
    with reading(path, f"an archive with {', '.join(wanted)}"):
        if len(found) < len(wanted):
            raise ValueError(f"it has no {', '.join(n for n in wanted if n not in found)}")
        for name in wanted:
            if not found[name]:
                raise EOFError(f"nothing is in {name}")
    return found


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 of the files, in their order."""
    whole = sha256()
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                whole.update(part)
    return whole.hexdigest()


def _wanted(name: str) -> bool:
    parts = (part for part in name.split("/") if part != ".")
    return not any(part.startswith((".", "__MACOSX")) for part in parts)


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
