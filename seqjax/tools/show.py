"""`seqjax show NAME`: all of a row on one page, and a picture of it."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import jax
import tyro

from seqjax.core.common import unknown
from seqjax.core.files import check_figure, save_figure
from seqjax.core.ranges import Count
from seqjax.stacks.config import Options
from seqjax.tools.explain import FEATURES
from seqjax.tools.screen import print_json, print_table
from seqjax.tools.sheets import SHEETS, STEPS, Sheet, rows_of
from seqjax.tools.tables import TABLES, Kind


def show(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    options: Options = MappingProxyType({}),
    features: Count = FEATURES,
    figure: Path | None = None,
    json: bool = False,
) -> int:
    """A row of any table: equation, options, parameters, costs, what it runs, and an example.

    A layer is looked at as its paper has it, at FEATURES features; what has a name in several
    tables is shown in each.

    Args:
        name: of a layer, op, task, learner, recipe, optimiser, evaluator or question of theory
        options: of a layer or a task, as in --options heads=2
        features: of the inputs of a layer
        figure: draw it there: of a layer what it remembers and how its state moves, of an op which
            inputs reach which outputs, of a task a batch
        json: print JSON
    """
    found = rows_of(name)
    if not found:
        names = [row.name for rows in TABLES.values() for row in rows()]
        raise ValueError(unknown("name", name, names))
    if options and not {"layers", "tasks"} & set(found):
        raise ValueError(
            f"--options are of layers and tasks, and {name} is none: {', '.join(found)}"
        )
    draw = None
    if figure is not None:
        from seqjax.tools.pictures import PICTURES

        draw = next((PICTURES[kind] for kind in found if kind in PICTURES), None)
        if draw is None:
            raise ValueError(f"--figure: there is no picture of {name}, of {', '.join(found)}")
        check_figure(figure)
    sheets: dict[Kind, Sheet] = {
        kind: SHEETS[kind](row, features, options) for kind, row in found.items()
    }
    if json:
        print_json({
            kind: {"name": name, "title": found[kind].title, "reference": found[kind].reference,
                   **sheet} for kind, sheet in sheets.items()
        })  # fmt: skip
    else:
        for kind, sheet in sheets.items():
            print(f"{name}, of {kind}: {found[kind].title} ({found[kind].reference})\n")
            _print(sheet)
    if figure is not None and draw is not None:
        save_figure(draw(name, options), figure, dpi=150)
        if not json:
            print(f"in {figure}")
    return 0


def _print(sheet: Sheet) -> None:
    if "document" in sheet:
        print(f"{sheet['document']}\n")
    if sheet.get("options"):
        columns = ("name", "default", "range", "meaning")
        print_table("options", columns, [[one[c] for c in columns] for one in sheet["options"]])
    if "config" in sheet:
        pairs = [(name, str(value)) for name, value in sheet["config"].items()]
        print_table("config, where it is not the default", ("field", "value"), pairs)
    for name in ("parameters", "state"):
        if sheet.get(name):
            print(f"{name}\n" + "".join(f"    {line}\n" for line in sheet[name]))
    for name in ("costs", "baseline", "exempt"):
        if sheet.get(name):
            pairs = [(one, _number(v)) for one, v in sheet[name].items() if v not in (None, "")]
            print_table(name, ("", ""), pairs)
    for name in ("input", "answer", "family", "kind"):
        if sheet.get(name):
            print(f"{name:8}{sheet[name]}")
    if "missing" in sheet:
        print(f"no sample: {sheet['missing']}\n")
    if sheet.get("layers"):
        print(f"layers  {', '.join(sheet['layers'])}")
    if sheet.get("sample"):
        print("\nsample\n" + "".join(f"    {line}".rstrip() + "\n" for line in sheet["sample"]))
    if "runs" in sheet:
        verdicts = [(part, *one) for part, found in sheet["runs"].items() for one in found.items()]
        title = f"\nruns, T = {STEPS}, on {jax.default_backend()}"
        print_table(title, ("part", "evaluator", "verdict"), verdicts)
    print(f"example\n    {sheet['example']}\n")


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
