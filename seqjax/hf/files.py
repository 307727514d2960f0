"""The files of a checkpoint folder: which of them are read, and new folders to write.

A name that comes from a file is a name, never a path: it neither leaves the folder nor goes below
it. What is written appears all at once, in a folder that was not there before.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqjax.core.common import printable
from seqjax.core.files import umask

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
CARRIED = (  # read by the tokenizer and by sampling of the reference: they go with the weights
    "generation_config.json tokenizer.json tokenizer_config.json tokenizer.model tokenizer.model.v3"
    " special_tokens_map.json added_tokens.json vocab.json vocab.txt merges.txt chat_template.jinja"
    " chat_template.json tekken.json"
).split()


def plain_name(name: Any, where: str) -> str:
    """`name` if it can only be a file of the folder it is used in."""
    bad = not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0")
    if bad or name != printable(name, ""):
        raise ValueError(f"{where} names a file {name!r}: it has to be a plain name")
    return name


def read_json(path: Path, what: str) -> tuple[str, dict[str, Any]]:
    """The text of a JSON file, and the object in it."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} has to hold {what}, not a {type(found).__name__}")
    return text, found


def read_config(folder: Path) -> tuple[str, dict[str, Any]]:
    """The text of config.json, and its fields."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} is no checkpoint folder: it has no {CONFIG}")
    return read_json(folder / CONFIG, "the fields of a config")


def weights(folder: Path) -> tuple[list[str], dict[str, str], list[str]]:
    """(files with weights, tensor -> file as the index lists them, other *.safetensors).

    The index decides; without one there is model.safetensors alone.
    """
    there = sorted(path.name for path in folder.glob("*.safetensors"))
    index: Any = {}
    if os.path.lexists(folder / INDEX):
        index = read_json(folder / INDEX, "a weight_map")[1].get("weight_map")
        if not isinstance(index, dict) or not index:
            raise ValueError(f"{folder / INDEX} has no weight_map from tensors to files")
        files = sorted({plain_name(name, INDEX) for name in index.values()})
        absent = [name for name in files if not (folder / name).is_file()]
        if absent:
            raise ValueError(
                f"{folder / INDEX} lists files that are not there: {', '.join(absent)}"
            )
    elif (folder / WEIGHTS).is_file():
        files = [WEIGHTS]
    else:
        others = f" (it has {', '.join(map(printable, there))})" if there else ""
        raise ValueError(
            f"there is no {WEIGHTS} in {folder}, and no {INDEX} that lists other files{others}; "
            "only safetensors are read"
        )
    return files, index, [name for name in there if name not in files]


def carried(folder: Path) -> dict[str, bytes]:
    """Contents of the files that go with the weights from folder to folder."""
    return {name: (folder / name).read_bytes() for name in CARRIED if (folder / name).is_file()}


def vacant(folder: str | Path) -> Path:
    """The path, if nothing is there but perhaps an empty folder; an error before any work."""
    folder = Path(folder)
    if folder.is_symlink():
        raise ValueError(f"{folder} is a symbolic link: give the path of a new folder")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give the path of a new folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty, and nothing is overwritten: give a new folder")
    return folder


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to fill; what is in it moves to `folder` when all is written, and is gone if not."""
    folder = vacant(folder).absolute()
    beside = folder if folder.is_dir() else folder.parent  # the same disk: moving is renaming
    beside.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=beside))
    try:
        yield partial
        closed = umask()
        for path in partial.iterdir():  # some libraries write files for their owner alone
            path.chmod((0o777 if path.is_dir() else 0o666) & ~closed)
        if beside is folder:
            for path in partial.iterdir():
                path.rename(folder / path.name)
            partial.rmdir()
        else:
            partial.chmod(0o777 & ~closed)  # so is a temporary folder
            partial.rename(vacant(folder))
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
