"""What stands, and why it runs as it runs: the tables of seqjax for people and programs."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
from flax import nnx
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tyro.conf import Positional

from seqjax import ops, recipes
from seqjax.core import monoid
from seqjax.core.common import unknown
from seqjax.core.scan import explain as explain_scan
from seqjax.learn import LEARNERS
from seqjax.nn import Layer, Recurrent
from seqjax.ops.op import Call, Op
from seqjax.recipes import RECIPES
from seqjax.tasks import TASKS
from seqjax.train.config import Count
from seqjax.zoo import LAYERS, family, make

FEATURES = 4  # of the layers looked at
Kind = Literal["layers", "ops", "evaluators", "learners", "tasks", "recipes"]


@dataclass(frozen=True)
class Row:
    """One thing that stands: a row of a table."""

    name: str
    title: str
    reference: str
    family: str = ""
    kind: str = ""  # of a layer: mixer, block or wrapper
    transition: str = ""  # of a layer: the structures it is made of; of an op: its equation
    evaluators: tuple[str, ...] = ()
    exempt: Mapping[str, str] = field(default_factory=dict)


# What of the evaluators has a paper; `seqjax.core.scan` and `seqjax.core.newton` say the rest.
EVALUATORS = (
    Row("sequential", "one step after another", "the definition"),
    Row("associative", "all prefixes as a balanced tree", "Blelloch 1990, 1709.04057"),
    Row("chunked", "a tree in each chunk, the state carried between", "2312.06635"),
    Row("primitive", "the diagonal recurrence as one JAX primitive", "seqjax.core.primitive"),
    Row("newton", "DEER: Newton on nonlinear recurrences; quasi (diagonal) form",
        "2309.12252, 2407.19115"),
    Row("parallel_backward", "the loop forward, its derivatives as scans", "seqjax.core.newton"),
)  # fmt: skip


def _layers() -> Iterator[Row]:
    for name, entry in LAYERS.items():
        yield Row(name, entry.title, entry.reference, family(name), entry.kind, exempt=entry.exempt)


def _traced(row: Row) -> Row:
    """The row of a layer with its transition and evaluators, for which it is built."""
    layer = _shape_of(row.name)
    own = [getattr(module, "structure", "") for _, module in nnx.iter_modules(layer)]
    structures = [
        ops.OPS[part].structure if part in ops.OPS else part for part in _parts_of(layer, 16)
    ]
    transition = ", ".join(dict.fromkeys(filter(None, [*structures, *own])))
    return replace(row, transition=transition, evaluators=tuple(layer.evaluators))


def _ops() -> Iterator[Row]:
    for name, op in ops.OPS.items():
        title, *body = (sys.modules[op.naive.__module__].__doc__ or "").splitlines()
        body = itertools.dropwhile(lambda line: not line.startswith("    "), body)
        block = itertools.takewhile(lambda line: line.startswith("    "), body)
        # remarks stand to the right of the equations
        equations = "; ".join(re.split(r"\s{3,}", line.strip())[0] for line in block)
        evaluators = tuple(op.evaluators)
        yield Row(
            name, title.rstrip("."), op.reference, transition=equations, evaluators=evaluators
        )


def _tasks() -> Iterator[Row]:
    for name, entry in TASKS.items():
        yield Row(name, entry.title, entry.reference)


def _recipes() -> Iterator[Row]:
    for name, config in RECIPES.items():
        module = next(m for m in vars(recipes).values() if getattr(m, "CONFIG", None) is config)
        document = module.__doc__ or ""
        found = re.findall(r"\b\d{4}\.\d{4,5}\b", document)
        yield Row(name, document.splitlines()[0].rstrip("."), ", ".join(dict.fromkeys(found)))


TABLES: dict[Kind, Callable[[], Iterable[Row]]] = {
    "layers": _layers,
    "ops": _ops,
    "evaluators": lambda: EVALUATORS,
    "learners": lambda: (
        Row(name, entry.title, entry.reference, entry.family) for name, entry in LEARNERS.items()
    ),
    "tasks": _tasks,
    "recipes": _recipes,
}


def list_tables(kind: Kind | None = None, json: bool = False) -> int:
    """Every row of every table, with its reference.

    Args:
        kind: one table only.
        json: print JSON.
    """
    kinds: Sequence[Kind] = [kind] if kind else list(TABLES)
    tables = {k: sorted_rows(k, traced=json) for k in kinds}
    if json:
        print_json({k: [_filled(asdict(row)) for row in rows] for k, rows in tables.items()})
        return 0
    for k, rows in tables.items():
        lines = [(row.family, row.name, row.kind, row.title, row.reference) for row in rows]
        show(k, ("family", "name", "kind", "what", "reference"), lines)
    return 0


def sorted_rows(kind: Kind, *, traced: bool = True) -> list[Row]:
    """The rows of a table, families together; layers that are not `traced` lack what it shows."""
    rows = list(TABLES[kind]())
    if kind == "layers" and traced:
        rows = list(map(_traced, rows))
    order = list(dict.fromkeys(row.family for row in rows))
    return sorted(rows, key=lambda row: order.index(row.family))


# ---- explain --------------------------------------------------------------------------------


Verdicts = dict[str, str]  # evaluator -> why it would run, or would not


class Part(NamedTuple):
    """An op, monoid or step that a module of a layer runs."""

    name: str
    module: str  # the class
    takes: bool  # the evaluator requested, where it has it; the others choose for themselves
    verdicts: Callable[[str], Verdicts]  # of a platform


def parts(layer: str, T: int) -> dict[str, Callable[[str], Verdicts]]:
    """What a layer runs over T time steps: name of an op, monoid or step -> verdicts(platform)."""
    return _parts_of(_shape_of(layer), T)


def _parts_of(layer: Layer, T: int) -> dict[str, Callable[[str], Verdicts]]:
    return {part.name: part.verdicts for part in _each_part(layer, T)}


def _each_part(layer: Layer, T: int) -> Iterator[Part]:
    """`parts` of a layer whose parameters may be shapes only: what its modules declare."""
    for _, module in nnx.iter_modules(layer):
        here = type(module).__name__
        if isinstance(module, Recurrent) and "associative" not in module.evaluators:
            step = f"nonlinear with {module.jacobian} Jacobian"
            yield Part(step, here, True, partial(_step_verdicts, module.evaluators))
        own = getattr(module, "ops", ()) if isinstance(module, Layer) else ()
        for name in dict.fromkeys((*getattr(module, "ops", ()), *getattr(module, "side_ops", ()))):
            verdicts = partial(explain_scan, name)
            if name in ops.OPS:
                decides = getattr(module, "op_options", None)
                call = Call(T, "", False, False, {} if decides is None else decides(T))
                verdicts = partial(_op_verdicts, ops.OPS[name], call, None)
            yield Part(name, here, name in own, verdicts)


def _requested(verdicts: Verdicts, evaluator: str, takes: bool = True) -> Verdicts:
    """Whether the evaluator requested is taken; where it is not, what runs in its place."""
    why = verdicts.get(evaluator, f"it has {', '.join(verdicts)}")
    if takes and why.startswith(("chosen", "can run", "only by name")):
        return {evaluator: "taken: requested by name"}
    if takes and evaluator in verdicts:
        return {evaluator: f"an error: {why}"}
    refused = {evaluator: f"not taken: {why if takes else 'it chooses for itself'}"}
    chosen = {name: why for name, why in verdicts.items() if why.startswith("chosen")}
    return {**chosen, **refused} if evaluator not in chosen else chosen


def _shape_of(layer: str) -> Layer:
    """A layer whose parameters are shapes only."""
    return nnx.eval_shape(lambda: make(layer, FEATURES, **LAYERS[layer].smoke))


def _op_verdicts(op: Op, call: Call, evaluator: Any, platform: str) -> Verdicts:
    """Two may be chosen: one for values alone, one where a derivative is taken."""
    value, derivative = (
        op.choose(replace(call, platform=platform, differentiated=taken), evaluator)
        for taken in (False, True)
    )
    chosen = {value.evaluator: f"chosen: {value.why}"}
    if derivative.evaluator != value.evaluator:
        chosen[derivative.evaluator] = f"chosen for derivatives: {derivative.why}"
    return chosen | {name: why for name, why in value.others.items() if name not in chosen}


def _step_verdicts(evaluators: Sequence[str], platform: str) -> Verdicts:
    del platform
    found = {
        "sequential": "chosen: the loop over the step, as it is written",
        "newton": "only by name: its iterations pay off where T is long and the device parallel",
        "parallel_backward": "only by name: gradients by scans, for parallel devices",
    }
    return {name: found[name] for name in evaluators}


def explain(
    name: Positional[str],
    T: Count = 2048,
    evaluator: str | None = None,
    platform: Literal["cpu", "gpu", "tpu"] | None = None,
    json: bool = False,
) -> int:
    """Which evaluator would run, and why the others would not.

    Args:
        name: a layer, an op, or the structure of a monoid.
        T: the number of time steps.
        evaluator: one that is requested by name: which parts take it, and what the others run.
        platform: a device that need not be present; by default this one.
        json: print JSON.
    """
    where = platform or jax.default_backend()
    algebras = [v for v in vars(monoid).values() if isinstance(v, monoid.Monoid)]
    structures = [algebra.structure for algebra in (*algebras, monoid.shift(2))]
    if name in LAYERS:
        found = _explain_layer(name, T, where, evaluator)
    elif name in ops.OPS:
        call = Call(T, where, False, False, {})
        found = {name: _op_verdicts(ops.OPS[name], call, None, where)}
    elif name in structures:
        found = {name: explain_scan(name, where)}
    else:
        raise ValueError(unknown("layer, op or monoid", name, [*LAYERS, *ops.OPS, *structures]))
    if evaluator and name not in LAYERS:
        if evaluator not in found[name]:
            raise ValueError(unknown(f"evaluator of {name}", evaluator, found[name]))
        found[name] = _requested(found[name], evaluator)
    if json:
        print_json({"name": name, "T": T, "platform": where, "parts": found})
        return 0
    lines = [(part, *verdict) for part, verdicts in found.items() for verdict in verdicts.items()]
    show(f"{name}, T = {T}, on {where}", ("part", "evaluator", "verdict"), lines)
    return 0


def _explain_layer(name: str, T: int, platform: str, evaluator: str | None) -> dict[str, Verdicts]:
    layer = _shape_of(name)
    each = [(part, part.verdicts(platform)) for part in _each_part(layer, T)]
    found = {part.name: verdicts for part, verdicts in each}
    named = {evaluator for verdicts in found.values() for evaluator in verdicts}
    own = [e for e in layer.evaluators if e not in named]
    if evaluator is None:
        why = "the layer's own" + (", only by name" if named else "")
        return {**found, name: dict.fromkeys(own, why)} if own else found
    if evaluator not in layer.evaluators:
        raise ValueError(unknown(f"evaluator of {name}", evaluator, layer.evaluators))
    found = {f"{part.name} of {part.module}": _requested(verdicts, evaluator, part.takes)
             for part, verdicts in each}  # fmt: skip
    return {**found, name: {evaluator: "taken: the layer's own"}} if evaluator in own else found


# ---- on the screen --------------------------------------------------------------------------


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
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


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value}
