"""Options of a command: read from the command line, checked against what they are declared to be.

Every mistake is a ValueError of one line. What text can be a number, a name or a path is looked at
in `seqjax.core.ranges` alone: text that is none stays text, and is refused there with its range.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import is_dataclass
from functools import wraps
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

from seqjax.core.ranges import check


def parse(command: Callable[..., int], argv: list[str], name: str) -> int:
    """Run `command` with its arguments from the command line."""

    @wraps(command)
    def read(*args, **options):
        return inspect.signature(command).bind(*args, **options).arguments

    printed, flags = StringIO(), (tyro.conf.FlagCreatePairsOff,)
    try:
        with redirect_stderr(printed), REGISTRY:
            options: Any = tyro.cli(read, args=argv, prog=f"seqjax {name}", config=flags)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise ValueError(_one_line(printed.getvalue())) from None
    hints = typing.get_type_hints(command, include_extras=True)
    for option, given in options.items():
        check(given, hints[option], "" if is_dataclass(given) else option)
    return command(**options)


def value(text: str, hint: Any) -> Any:
    """The number, choice or path of `hint` that the text means; the text itself if it is none."""
    kind, _, optional = _kind(hint)
    if optional and text.lower() == "none":
        return None
    try:
        return kind(text) if kind and text else text
    except ValueError:
        return text


REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def _lenient(info: Any) -> PrimitiveConstructorSpec | None:
    kind, choices, optional = _kind(info.type)
    if kind is None:
        return None
    shown = f"{{{','.join(map(str, choices))}}}" if choices else kind.__name__.upper()
    return PrimitiveConstructorSpec(
        1, f"{shown}|None" if optional else shown, lambda words: value(words[0], info.type),
        lambda x: True, lambda x: [str(x)],
    )  # fmt: skip


def _kind(hint: Any) -> tuple[Any, tuple, bool]:
    """int, float, str of choices, or Path; the choices; whether it may be None. Else None."""
    if typing.get_origin(hint) is Annotated:
        return _kind(typing.get_args(hint)[0])
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = [one for one in (typing.get_args(hint) if optional else (hint,))
             if one is not types.NoneType]  # fmt: skip
    if len(kinds) != 1:
        return None, (), False
    (one,) = kinds
    if typing.get_origin(one) is Annotated:
        one = typing.get_args(one)[0]
    choices = typing.get_args(one) if typing.get_origin(one) is Literal else ()
    return (str if choices else one if one in (int, float, Path) else None), choices, optional


def _one_line(box: str) -> str:
    """What stands in a box of several lines: its message, and the nearest option."""
    lines = [line.strip("╭╮╰╯│ ") for line in box.splitlines()]  # without a frame in ASCII
    title, *rest = [line for line in lines if line] or [box]
    text = re.split("[─-]{5,}", "\n".join(rest).strip("─-\n"))
    message, *more = [part for part in text if part] or [title]
    suggestion = re.compile(r"Perhaps you meant:\s+(\S+)")
    near = next((found[1] for part in more if (found := suggestion.search(part))), None)
    return " ".join(message.split()) + (f"; did you mean {near}?" if near else "")
