"""The tables of README.md, written between their markers: `python scripts/readme.py`.

What a row says of itself is read from the tables of seqjax; what was measured, and which goldens a
layer answers, from scripts/zoo.json (`scripts/zoo.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from seqjax.core.files import write_atomically
from seqjax.learn import LEARNERS
from seqjax.tools.tables import Row, sorted_rows
from seqjax.zoo import FAMILIES, LAYERS

ROOT = Path(__file__).resolve().parent.parent
ZOO = json.loads((ROOT / "scripts" / "zoo.json").read_text())


def zoo() -> str:
    """A table per family, and what its rows are exempt from."""
    measured = ZOO["measured"]
    text = (
        "us and KiB a token: time and temporary memory of a pass, and of one with gradients, by\n"
        f"the default evaluator at {measured['shape']}; {measured['device']}, "
        f"{measured['versions']}, {measured['date']},\n`{measured['command']}`. goldens: cases of "
        "official numbers that pass; in brackets those of a part or an op.\nkind: a mixer stands "
        "in the model's x += mixer(norm(x)), a block is x = block(x), a wrapper is made\nof "
        "layers. transition: the structure of the map from one state to the next (a shift is what\n"
        "a convolution carries). state: the floats that an example carries from step to step.\n"
    )
    rows = sorted_rows("layers")
    for family in FAMILIES:
        name = family.__name__.rpartition(".")[2]
        mine = [row for row in rows if row.family == name]
        columns = ("name", "kind", "what", "year", "transition", "state", "evaluators", "us", "KiB",
                   "goldens")  # fmt: skip
        text += f"\n### {name}: {(family.__doc__ or '').strip().rstrip('.')}\n\n"
        text += markdown(columns, map(layer, mine))
        reasons: dict[tuple[str, str], list[str]] = {}
        for row in mine:
            for law, why in row.exempt.items():
                reasons.setdefault((row.name, why), []).append(law)
        told = [f"`{name}` from {', '.join(laws)} ({why})" for (name, why), laws in reasons.items()]
        text += f"\nExempt: {'; '.join(told)}.\n" if told else ""
    return text


def layer(row: Row) -> tuple[str, ...]:
    cost = ZOO["rows"].get(row.name, {})
    state = LAYERS[row.name].state.replace(" * ", " ")
    goldens = ", ".join(f"{name} {n}" for name, n in cost.get("goldens", {}).items())
    return (
        f"`{row.name}`",
        row.kind,
        f"{row.title} ({links(row.reference)})",
        year(row.reference),
        row.transition,
        f"`{state}`" if state else "of its layers",
        ", ".join(row.evaluators),
        ", ".join(f"{v:.3g}" for v in cost.get("us", ())),
        ", ".join(f"{v:.3g}" for v in cost.get("kib", ())),
        goldens,
    )


def year(reference: str) -> str:
    """Of the first arXiv id, or the last year named."""
    arxiv = re.search(r"\b(\d\d)\d\d\.\d{4,5}\b", reference)
    named = re.findall(r"\b(?:19|20)\d\d\b", reference)
    return f"20{arxiv[1]}" if arxiv else (named or [""])[-1]


def tables() -> dict[str, str]:
    """The generated parts of README.md, as Markdown."""
    of_ops = [
        (f"`{row.name}`", "<br>".join(f"`{line}`" for line in row.transition.split("; ")),
         ", ".join(row.evaluators), links(row.reference))
        for row in sorted_rows("ops")
    ]  # fmt: skip
    ways = [
        (f"`{name}`", way.family, f"{way.title} ({links(way.reference)})", way.exact,
         f"`{way.time}`", f"`{way.memory}`")
        for name, way in LEARNERS.items()
    ]  # fmt: skip
    return {
        "learners": markdown(
            ("name", "family", "what", "exact", "time of a step", "memory"), ways),
        "layers": zoo(),
        "ops": markdown(("name", "equation", "evaluators", "reference"), of_ops),
    }  # fmt: skip


def renewed(text: str) -> str:
    """README's text with every table between `<!-- table: NAME -->` and `<!-- end -->` renewed."""
    for name, table in tables().items():
        place = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = place.subn(lambda m, table=table: f"{m[1]}{table}{m[2]}", text)
        if count != 1:
            raise ValueError(f"README has {count} places marked <!-- table: {name} -->, expected 1")
    return text


def links(reference: str) -> str:
    return re.sub(r"\b(\d{4}\.\d{4,5})\b", r"[\1](https://arxiv.org/abs/\1)", reference)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    write_atomically(readme, renewed(readme.read_text()))
