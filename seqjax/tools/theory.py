"""`seqjax theory NAME`: a question of theory, asked of layers of the tables."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seqjax.core.common import unknown
from seqjax.core.files import check_figure
from seqjax.theory import THEORY, draw
from seqjax.tools.options import parse
from seqjax.tools.screen import print_json, print_table


def theory(words: list[str]) -> int:
    name, *rest = words or ["--help"]
    if name in ("-h", "--help"):
        print("usage: seqjax theory NAME ...    (seqjax theory NAME --help: its options)\n")
        print("\n".join(f"    {name:24}{entry.title}" for name, entry in THEORY.items()))
        return 0
    if name not in THEORY:
        raise ValueError(unknown("question", name, THEORY))
    return parse(command_of(THEORY[name].make), rest, f"theory {name}")


def command_of(question: Callable[..., Any]) -> Callable[..., int]:
    """A question with its options, and where its answer goes."""

    def command(*, figure: Path | None = None, json: bool = False, **options: Any) -> int:
        if figure is not None:
            check_figure(figure)
        found = question(**options)
        if json:
            rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
            curves = {label: np.asarray([list(x), y], float).tolist()
                      for label, (x, y) in found.curves.items()}  # fmt: skip
            print_json({"title": found.title, "rows": rows, "curves": curves})
        else:
            print_table(found.title, found.columns, found.rows)
        if figure is not None:
            draw(found, figure)
            if not json:
                print(f"in {figure}")
        return 0

    every = [*inspect.signature(question).parameters.values()]
    own = [p for p in inspect.signature(command).parameters.values() if p.kind != p.VAR_KEYWORD]
    hints = typing.get_type_hints(question, include_extras=True)
    hints |= {one.name: typing.get_type_hints(command)[one.name] for one in own}
    command.__signature__ = inspect.Signature([*every, *own])  # pyright: ignore
    command.__annotations__ = hints | {"return": int}
    command.__doc__ = inspect.cleandoc(question.__doc__ or "") + (
        "\n    figure: draw its curves there\n    json: print JSON, with the curves"
    )
    return command
