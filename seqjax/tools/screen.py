"""What commands print: tables, JSON, a bar of progress."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table: drawn on a terminal, aligned plain text elsewhere; empty columns are left out."""
    rows = [tuple(row) for row in rows]
    used = [i for i, _ in enumerate(columns) if not rows or any(row[i] for row in rows)]
    number = re.compile(r"-?\d[\d.e+-]*( ?x)?|nan|inf|")
    right = {i for i in used if all(number.fullmatch(row[i]) for row in rows)}
    console = Console(markup=False, highlight=False)
    if console.is_terminal:
        table = Table(title=title, title_justify="left")
        for i in used:
            table.add_column(columns[i], justify="right" if i in right else "left")
        for row in rows:
            table.add_row(*(row[i] for i in used))
        console.print(table)
        return
    width = {i: max(len(row[i]) for row in [columns, *rows]) for i in used}
    print(title)
    for row in [columns, *rows]:
        cells = (row[i].rjust(width[i]) if i in right else row[i].ljust(width[i]) for i in used)
        print("  ".join(cells).rstrip())
    print()


def announce(work: Iterable[Any], what: str, total: int | None = None) -> Iterable[Any]:
    """`work`, with a progress bar where there is a terminal."""
    console = Console(stderr=True)
    return track(
        work, what, total=total, console=console, transient=True, disable=not console.is_terminal
    )


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
