"""Where a run's modules come from that are not of the package, and how it finds them again.

A run keeps of each of them, in its config.json, path or name, the hash of the text and the commit
of the repository that it lies in; of a file also a copy, which is read where the file is gone or
has changed.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from seqjax.core.common import Notice
from seqjax.core.files import write_atomically
from seqjax.tasks import TASKS
from seqjax.zoo import LAYERS
from seqjax.zoo.own import BROUGHT, PREFIX, bring, is_file, text_of

FOLDER = "own"  # of a run: copies of its files


@dataclass(frozen=True)
class Source:
    name: str  # FILE.py, resolved, or the name of a module
    file: str | None  # of its text
    text: str

    @property
    def record(self) -> dict[str, Any]:
        """What config.json has of it; changed: whether its file is not as in that commit."""
        kept: dict[str, Any] = {"name": self.name, "sha256": hash_of(self.text)}
        if self.file is not None:
            folder = Path(self.file).parent
            kept["commit"] = git(folder, "rev-parse", "HEAD")
            status = git(folder, "status", "--porcelain", "--", self.file)
            kept["changed"] = bool(status)
        return kept


def sources(config: str) -> list[Source]:
    """The modules that were brought, and those of other rows from outside that a config names."""
    found = {
        name: Source(name, getattr(module, "__file__", None), text)
        for name, (text, module) in BROUGHT.items()
    }
    for name, entry in (*LAYERS.items(), *TASKS.items()):
        module = sys.modules.get(getattr(entry.make, "__module__", ""))
        if module is None or module.__name__.startswith("seqjax.") or f'"{name}"' not in config:
            continue
        file, where = getattr(module, "__file__", None), module.__name__
        if where == "__main__" or where.startswith(PREFIX):
            where = file and str(Path(file).resolve())
        if where and where not in found:  # a notebook has no file
            found[where] = Source(where, file, text_of(module))
    return list(found.values())


def keep(found: Iterable[Source], run: Path) -> None:
    """Copies of the files, in the folder of a run."""
    for one in found:
        if is_file(one.name):
            copy = copy_of(one.name, hash_of(one.text), run)
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copy, one.text)


def copy_of(file: str, sha256: str, run: Path) -> Path:
    """Where a run keeps a file: two may have one name."""
    return run / FOLDER / sha256[:8] / Path(file).name


def recall(recorded: Iterable[Mapping[str, Any]], run: Path) -> None:
    """Bring the modules of a run again: as they are if they are the same, else the copies.

    Raises ValueError for a module that is there no more.
    """
    for name, before in ((one["name"], one["sha256"]) for one in recorded):
        if is_file(name) and name not in BROUGHT:
            original, copy = Path(name), copy_of(name, before, run)
            if original.is_file() and hash_of(original.read_text()) == before:
                bring(original)
            elif copy.is_file():
                why = "has changed since" if original.is_file() else "is gone:"
                _warn(f"{name} {why} {run} was trained with it; its copy there is used")
                bring(copy)
            else:
                raise ValueError(f"{run} was trained with {name}, which is gone, as is {copy}")
        else:
            bring(name)
            if hash_of(BROUGHT[name][0]) != before:
                _warn(f"{name} has changed since {run} was trained with it")


def git(folder: Path, *words: str) -> str | None:
    """What git prints of the repository that a folder is in; None where there is none."""
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _warn(text: str) -> None:
    warnings.warn(text, Notice, stacklevel=3)
