"""`seqjax list`: what stands, for people and programs."""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import optax
from flax import nnx
from tyro.conf import Positional

from seqjax import ops, recipes
from seqjax.core.common import unknown
from seqjax.learn import LEARNERS
from seqjax.models import MODELS
from seqjax.recipes import RECIPES
from seqjax.tasks import TASKS
from seqjax.theory import THEORY
from seqjax.tools.screen import print_json, print_table
from seqjax.train.optimiser import OPTIMISERS
from seqjax.zoo import LAYERS, family

Kind = Literal[
    "layers", "ops", "evaluators", "learners", "tasks", "recipes", "models", "optimisers",
    "theory",
]  # fmt: skip
ARXIV = re.compile(r"\b\d{4}\.\d{4,5}\b")


@dataclass(frozen=True)
class Row:
    """One thing that stands: a row of a table.

    costs: of a learner when it is exact and what a step takes; of a layer its state, parameters
        and work (`seqjax.tools.anatomy.Costs`).
    """

    name: str
    title: str
    reference: str
    family: str = ""
    kind: str = ""  # of a layer: mixer, block or wrapper
    transition: str = ""  # of a layer: the structures it is made of; of an op: its equation
    evaluators: tuple[str, ...] = ()
    exempt: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, Any] = field(default_factory=dict)

    def has(self, word: str) -> bool:
        """Whether the word stands in its name, family, title or reference, in any case."""
        text = " ".join((self.name, self.family, self.title, self.reference))
        return word.lower() in text.lower()


# What of the evaluators has a paper; `seqjax.core.scan` and `seqjax.core.newton` have the rest.
EVALUATORS = (
    Row("sequential", "one step after another", "the definition"),
    Row("associative", "all prefixes as a balanced tree", "Blelloch 1990, 1709.04057"),
    Row("chunked", "a tree in each chunk, the state carried between", "2312.06635"),
    Row("primitive", "the diagonal recurrence as one JAX primitive", "seqjax.core.primitive"),
    Row("newton", "DEER: Newton on nonlinear recurrences; quasi (diagonal) form",
        "2309.12252, 2407.19115"),
    Row("elk", "ELK: Newton in a trust region, by a Kalman smoother; quasi (diagonal) form",
        "2407.19115"),
    Row("parallel_backward", "the loop forward, its derivatives as scans", "seqjax.core.newton"),
)  # fmt: skip


def _layers() -> Iterator[Row]:
    for name, entry in LAYERS.items():
        yield Row(name, entry.title, entry.reference, family(name), entry.kind, exempt=entry.exempt)


def _traced(row: Row, priced: bool) -> Row:
    """The row of a layer with its transition, evaluators and costs, for which it is built."""
    from seqjax.tools.anatomy import costs_of
    from seqjax.tools.explain import parts_of, shape_of

    layer = shape_of(row.name)
    own = [getattr(module, "structure", "") for _, module in nnx.iter_modules(layer)]
    structures = [ops.OPS[part].structure if part in ops.OPS else part for part in parts_of(layer)]
    transition = ", ".join(dict.fromkeys(filter(None, [*structures, *own])))
    costs = costs_of(layer, LAYERS[row.name].state)._asdict() if priced else {}
    return replace(row, transition=transition, evaluators=tuple(layer.evaluators), costs=costs)


def _ops() -> Iterator[Row]:
    for name, op in ops.OPS.items():
        document = sys.modules[op.naive.__module__].__doc__ or ""
        # remarks stand to the right of the equations
        equations = [re.split(r"\s{3,}", line.strip())[0] for line in first_block(document)]
        title = document.splitlines()[0].rstrip(".")
        yield Row(
            name,
            title,
            op.reference,
            transition="; ".join(equations),
            evaluators=tuple(op.evaluators),
        )


def first_block(document: str) -> list[str]:
    """The first lines of a docstring that are indented: its equations."""
    body = itertools.dropwhile(lambda line: not line.startswith("    "), document.splitlines()[1:])
    return list(itertools.takewhile(lambda line: line.startswith("    "), body))


def _learners() -> Iterator[Row]:
    for name, entry in LEARNERS.items():
        costs = {"exact": entry.exact, "time": entry.time, "memory": entry.memory}
        yield Row(name, entry.title, entry.reference, entry.family, costs=costs)


def _tasks() -> Iterator[Row]:
    for name, entry in TASKS.items():
        module = entry.make.__module__
        family = module.split(".")[2] if module.startswith("seqjax.tasks.") else "own"
        yield Row(name, entry.title, entry.reference, family)


def _recipes() -> Iterator[Row]:
    for name, config in RECIPES.items():
        module = next(m for m in vars(recipes).values() if getattr(m, "CONFIG", None) is config)
        document = module.__doc__ or ""
        found = dict.fromkeys(ARXIV.findall(document))
        yield Row(name, document.splitlines()[0].rstrip("."), ", ".join(found))


def _optimisers() -> Iterator[Row]:
    for name in OPTIMISERS:
        document = inspect.getdoc(published(name)) or ""
        found = dict.fromkeys(ARXIV.findall(document))
        yield Row(name, document.splitlines()[0].rstrip("."), ", ".join(found) or "optax")


def published(optimiser: str) -> Callable[..., Any]:
    """What optax has under that name, which documents it; else ours."""
    other = getattr(optax.contrib, optimiser, OPTIMISERS[optimiser])
    return getattr(optax, optimiser, other)


TABLES: dict[Kind, Callable[[], Iterable[Row]]] = {
    "layers": _layers,
    "ops": _ops,
    "evaluators": lambda: EVALUATORS,
    "learners": _learners,
    "tasks": _tasks,
    "recipes": _recipes,
    "models": lambda: (Row(name, title, "seqjax.models") for name, title in MODELS.items()),
    "optimisers": _optimisers,
    "theory": lambda: (Row(n, entry.title, entry.reference) for n, entry in THEORY.items()),
}


def list_tables(
    word: Positional[str] = "",
    kind: Kind | None = None,
    family: str | None = None,
    json: bool = False,
) -> int:
    """Every row of every table, with its reference.

    Args:
        word: only rows with this in their name, family, title or reference.
        kind: one table only.
        family: of layers or learners, one family only.
        json: print JSON, with the state, parameters, exactness and costs of every row: this builds
            every layer, and takes a quarter of a minute.
    """
    kinds: Iterable[Kind] = [kind] if kind else TABLES
    tables = {k: list(TABLES[k]()) for k in kinds}
    families = {row.family for rows in tables.values() for row in rows} - {""}
    if family is not None and family not in families:
        raise ValueError(unknown("family", family, families))
    chosen = {
        k: [row for row in rows if family in (None, row.family) and row.has(word)]
        for k, rows in tables.items()
    }
    if not any(chosen.values()):
        names = [row.name for rows in tables.values() for row in rows]
        raise ValueError(unknown("word: no row has", word, names))
    for k, rows in chosen.items():
        rows = in_order(rows, traced=json and k == "layers", priced=json)
        chosen[k] = rows
    if json:
        print_json({k: [_filled(asdict(row)) for row in rows] for k, rows in chosen.items()})
        return 0
    for k, rows in chosen.items():
        lines = [(row.family, row.name, row.kind, row.title, row.reference) for row in rows]
        if lines:
            print_table(k, ("family", "name", "kind", "what", "reference"), lines)
    return 0


def sorted_rows(kind: Kind) -> list[Row]:
    """The rows of a table, families together, layers with what they run."""
    return in_order(list(TABLES[kind]()), traced=kind == "layers")


def in_order(rows: Sequence[Row], *, traced: bool, priced: bool = False) -> list[Row]:
    order = list(dict.fromkeys(row.family for row in rows))
    rows = sorted(rows, key=lambda row: order.index(row.family))
    return [_traced(row, priced) for row in rows] if traced else rows


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value}
