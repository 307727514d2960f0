"""Docstrings as Markdown: equations and tables as they stand, arguments as a list, ids as links.

Docstrings are written to be read in an editor: what is indented is kept as it is, names that are
explained begin a line, and outside of backticks no character is special.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

ARGUMENT = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*): (?=\S)(.*)")
ARXIV = re.compile(r"\b(arXiv:)?(\d{4}\.\d{4,5})\b")


def markdown(docstring: str) -> str:
    """The docstring as Markdown, without its indentation."""
    lines = inspect.cleandoc(docstring).splitlines()
    if "Args:" in lines:  # as the command line has them
        at = lines.index("Args:")
        lines[at:] = inspect.cleandoc("\n".join(lines[at + 1 :])).splitlines()
    out: list[str] = []
    kind = ""  # of the line before: text, item, code
    for line, after in zip(lines, [*lines[1:], ""]):
        item = ARGUMENT.fullmatch(line)
        if item and kind != "item" and re.match(r"[a-z(\d]", after) and not ARGUMENT.match(after):
            item = None  # a sentence with a colon, which goes on
        if not line.strip():
            now, written = "", ""
        elif line.startswith(">>> ") or kind == "example":  # up to the next empty line
            now, written = "example", "    " + line
        elif line.startswith("    ") and kind == "item":
            now, written = kind, "    " + prose(line.strip())
        elif line.startswith("    "):
            now, written = "code", line
        elif item and (kind == "item" or not kind or not out[-1]):
            now, written = "item", f"- `{item[1]}`: {prose(item[2])}"
        else:
            now, written = "text", prose(line)
        if now != kind and kind and now and out[-1]:
            out.append("")
        out.append(written)
        # a block of code may have empty lines in it
        kind = kind if kind == "code" and not now else now
    return "\n".join(out)


def prose(text: str) -> str:
    """Text in which only what stands in backticks is special, with links to arXiv."""
    parts = re.split(r"(`+[^`]+`+)", text)
    parts[::2] = [
        links(re.sub(r"([\\*_\[\]>#])", r"\\\1", part.replace("<", "&lt;"))) for part in parts[::2]
    ]
    return "".join(parts)


def links(text: str) -> str:
    """arXiv ids as links."""
    return ARXIV.sub(lambda m: f"[{m[0]}](https://arxiv.org/abs/{m[2]})", text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a column that is empty in every row is left out."""
    rows = [[str(value) for value in row] for row in rows]
    kept = [n for n in range(len(columns)) if any(row[n] for row in rows)]
    lines = [list(columns), ["---"] * len(columns), *rows]
    cells = ([cell(line[n]) for n in kept] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells) + "\n"


def cell(text: str) -> str:
    """Of a table; a bar in backticks needs no escape."""
    parts = re.split(r"(`[^`]+`)", text.replace("\n", " "))
    parts[::2] = [re.sub(r"(?<!\\)\|", r"\\|", part) for part in parts[::2]]
    return "".join(parts)
