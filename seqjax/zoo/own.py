"""Own work: modules outside the package that bring layers and tasks.

    seqjax train my_experiment.py              a file: what it brings, and its CONFIG
    seqjax bench leaky --import my_layers.py   the same for every command
    seqjax train mqar --import their.layers    a module that is installed

A module may add rows itself, LAYERS["mine"] = Entry(...), TASKS["ours"] = Entry(...). What it
defines and does not add is added under its own name: a class of layers LeakyUnit as `leaky_unit`, a
function `-> Task` under the name that it has. Installed packages bring theirs without a word, by
entry points of the groups "seqjax.layers" and "seqjax.tasks", whose objects are modules.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from seqjax.core.common import Notice
from seqjax.nn.base import Layer
from seqjax.tasks import TASKS, Entry as TaskEntry, Task
from seqjax.zoo import LAYERS
from seqjax.zoo.entry import Entry

R = TypeVar("R")
PREFIX = "seqjax_own."  # of the names of modules that are files
LOADING: list[str] = []  # what is being imported now
BROUGHT: dict[str, tuple[str, ModuleType]] = {}  # by name, with its text, in the order they came


def bring(name: str | Path) -> ModuleType:
    """Import FILE.py or a module by its name, and add what it brings to the tables.

    Once per process, unless the file has changed. Raises ValueError, of one line, for what is not
    there, does not import, or brings a name that stands already.
    """
    name = str(Path(name).resolve()) if is_file(name) else str(name)
    if name in BROUGHT and BROUGHT[name][0] == text_of(BROUGHT[name][1]):
        return BROUGHT[name][1]
    module = load_file(name) if is_file(name) else _import(name)
    add(module)
    BROUGHT[name] = text_of(module), module
    return module


def text_of(module: ModuleType) -> str:
    """Of its file; empty where it has none, or one that is no text."""
    file = getattr(module, "__file__", None)
    return Path(file).read_text() if file and is_file(file) and Path(file).is_file() else ""


def bring_installed() -> None:
    """Bring the modules that installed packages declare; one that does not import is a notice."""
    for group in ("seqjax.layers", "seqjax.tasks"):
        for point in entry_points(group=group):
            try:
                bring(point.module)
            except ValueError as error:
                warnings.warn(f"{error} (an entry point of {group})", Notice, stacklevel=2)


def brought(argv: Iterable[str]) -> list[str]:
    """The words of a command line without --import NAME, after these and what is installed were
    brought."""
    bring_installed()
    left, words = [], iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag != "--import":
            left.append(word)
        elif value := value if equals else next(words, ""):
            bring(value)
        else:
            raise ValueError("--import is followed by a module or FILE.py")
    return left


def add(module: ModuleType) -> None:
    """Rows for the layers and tasks that a module defines and has not added itself."""
    file = module.__name__.startswith(PREFIX)
    where = Path(str(module.__file__)).name if file else module.__name__
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value) and issubclass(value, Layer):
            if all(entry.make is not value for entry in LAYERS.values()):
                _row(LAYERS, snake_case(value.__name__), value, where)
        elif inspect.isfunction(value) and value.__annotations__.get("return") in (Task, "Task"):
            if all(entry.make is not value for entry in TASKS.values()):
                _row(TASKS, value.__name__, value, where)


def load_file(path: str | Path) -> ModuleType:
    """The module of FILE.py, under a name of its own: a file copy.py is not the copy of others.

    Raises ValueError, of one line, for what is not there or does not run.
    """
    path = Path(path).resolve()
    if not path.is_file() or not is_file(path):
        raise ValueError(f"no file {str(path)!r} to import, expected FILE.py")
    name = PREFIX + path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # its name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where pickle and dataclasses look
    if str(path.parent) not in sys.path:  # its neighbours, after everything else
        sys.path.append(str(path.parent))
    _executed(partial(spec.loader.exec_module, module), str(path))
    return module


def snake_case(name: str) -> str:
    """LeakyUnit -> leaky_unit, MinGRU -> min_gru."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def is_file(name: str | Path) -> bool:
    return str(name).endswith(".py")


def _import(name: str) -> ModuleType:
    try:
        there = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        there = False
    if not there:
        raise ValueError(f"no module {name!r} to import: install it, or give FILE.py")
    return _executed(lambda: importlib.import_module(name), name)


def _executed(run: Callable[[], R], name: str) -> R:
    """run(), its errors as one line with the line of the module that they come from."""
    LOADING.append(name)
    try:
        return run()
    except SyntaxError as error:
        raise ValueError(f"{name}, line {error.lineno}: {error.msg}") from None
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == name]
        at = f", line {lines[-1]}" if lines else ""
        raise ValueError(f"{name}{at}: {type(error).__name__}: {error}") from error
    finally:
        LOADING.pop()


def _row(table: dict[str, Any], name: str, made: Any, where: str) -> None:
    """A row for a class of layers or a function that makes a task, titled by its docstring."""
    if name in table and table[name].make.__module__ != made.__module__:
        raise ValueError(f"{where} brings {name!r}, which stands already: rename it")
    title = (inspect.getdoc(made) or name).splitlines()[0].rstrip(".")
    entry = Entry if table is LAYERS else TaskEntry
    table[name] = entry(made, title, where)
