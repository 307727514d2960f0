"""What `seqjax show` has of one row, as plain values: a sheet for each kind of table.

Options are read off signatures: defaults and ranges off their annotations, meanings off
`seqjax.zoo.meanings` for layers and off docstrings (`name: meaning`) for all others.
"""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, get_type_hints

import jax
from flax import nnx

import seqjax
from seqjax import models, ops
from seqjax.core.ranges import describe
from seqjax.data import DataError
from seqjax.learn import LEARNERS
from seqjax.nn import Layer
from seqjax.ops.op import Call
from seqjax.recipes import RECIPES
from seqjax.stacks.config import LayerConfig, show_options
from seqjax.tasks import TASKS, check_task
from seqjax.theory import THEORY
from seqjax.tools.anatomy import costs_of
from seqjax.tools.explain import layer_verdicts, op_verdicts
from seqjax.tools.samples import sample_lines
from seqjax.tools.tables import TABLES, Kind, Row, first_block, published
from seqjax.train.config import Config, TaskConfig
from seqjax.train.optimiser import OPTIMISERS
from seqjax.zoo import LAYERS, factory, family
from seqjax.zoo.meanings import meaning
from seqjax.zoo.options import hints
from seqjax.zoo.own import PREFIX

Sheet = dict[str, Any]
STEPS = 2048  # of the verdicts on evaluators, as `seqjax explain` has them


def layer_sheet(row: Row, features: int, options: Mapping[str, Any]) -> Sheet:
    entry = LAYERS[row.name]
    build = factory((row.name, options))
    layer = nnx.eval_shape(lambda: build(features, rngs=nnx.Rngs(0)))
    document = documented(entry.make)
    arrays = nnx.to_flat_state(nnx.state(layer, nnx.Param))
    state = jax.eval_shape(lambda a: nnx.merge(nnx.graphdef(layer), a).batch_state(1),
                           nnx.state(layer))  # fmt: skip
    names = " ".join([row.name, *(f"{name}={value}" for name, value in options.items())])
    return {
        "family": family(row.name),
        "kind": entry.kind,
        "equation": "\n".join(first_block(document)),
        "document": document,
        "options": [
            {"name": name, "default": _shown(default), "range": _range(row.name, name, hint),
             "meaning": meaning(row.name, name)}
            for name, hint, default in _declared(entry.make.__init__, hints(entry.make))
        ],
        "parameters": counted(
            (".".join("*" if isinstance(part, int) else str(part) for part in path),
             shape_of(variable.get_value())) for path, variable in arrays
        ),
        "state": counted((shape_of(leaf, batched=True),) for leaf in jax.tree.leaves(state)),
        "costs": costs_of(layer, entry.state)._asdict(),
        "runs": layer_verdicts(layer, row.name, STEPS, 1, jax.default_backend()),
        "evaluators": list(layer.evaluators),
        "exempt": dict(entry.exempt),
        "example": f"seqjax train state_tracking --model.layer {names}{_brought(entry.make)}",
    }  # fmt: skip


def op_sheet(row: Row, *_: Any) -> Sheet:
    op, function = ops.OPS[row.name], getattr(seqjax, row.name)
    document = sys.modules[op.naive.__module__].__doc__ or ""
    where = jax.default_backend()
    return {
        "equation": "\n".join(first_block(document)),
        "document": f"{document.strip()}\n\n{_call(function)}\n\n{inspect.getdoc(function)}",
        "options": _options(function),
        "runs": {row.name: op_verdicts(op, Call(STEPS, where), None, where)},
        "layers": [name for name, entry in LAYERS.items() if row.name in _ops_of(entry.make)],
        "example": f"seqjax bench {row.name}",
    }


def task_text(row: Row, options: Mapping[str, Any] = MappingProxyType({})) -> Sheet:
    """What of a sheet needs no data."""
    entry = TASKS[row.name]
    check_task(row.name, options)
    flags = " ".join([" --task.options", *show_options(options)]) if options else ""
    document = documented(entry.make)
    return {
        "equation": "\n".join(first_block(document)),
        "document": document,
        "options": _options(entry.make),
        "example": f"seqjax train {row.name}{flags}{_brought(entry.make)}",
    }


def task_sheet(row: Row, _: int, options: Mapping[str, Any]) -> Sheet:
    entry, sheet = TASKS[row.name], task_text(row, options)
    given = {**entry.smoke, **options}
    try:
        task = entry.make(**given)
    except DataError as error:  # the rest can be read without its files
        return sheet | {"missing": str(error)}
    length = entry.length or task.decides.get("length", TaskConfig.length)
    return sheet | {
        "input": str(task.spec.inputs),
        "answer": str(task.spec.outputs),
        "baseline": {"steps": length, **given, **task.baseline(length)},
        "sample": sample_lines(task, length),
    }


def learner_sheet(row: Row, *_: Any) -> Sheet:
    function = LEARNERS[row.name].make
    document = documented(function)
    return {
        "family": row.family,
        "equation": "\n".join(first_block(document)),
        "document": f"{document}\n\n{_call(function)}",
        "options": _options(function),
        "costs": dict(row.costs),
        "example": "seqjax learners",
    }


def recipe_sheet(row: Row, *_: Any) -> Sheet:
    from seqjax import recipes

    config = RECIPES[row.name]
    module = next(m for m in vars(recipes).values() if getattr(m, "CONFIG", None) is config)
    return {
        "document": (module.__doc__ or "").strip(),
        "config": changed(config, Config()),
        "example": f"seqjax train {row.name}",
    }


def optimiser_sheet(row: Row, *_: Any) -> Sheet:
    return {
        "document": inspect.getdoc(published(row.name)) or "",
        "options": _options(OPTIMISERS[row.name], published(row.name)),
        "example": f"seqjax train copy --optimiser.name {row.name}",
    }


def model_sheet(row: Row, *_: Any) -> Sheet:
    card = models.FOLDER / row.name / "CARD.md"
    return {"document": card.read_text().strip(), "example": f"seqjax eval {row.name}"}


def theory_sheet(row: Row, *_: Any) -> Sheet:
    question = THEORY[row.name].make
    return {
        "document": documented(question),
        "options": _options(question),
        "example": f"seqjax theory {row.name}",
    }


def evaluator_sheet(row: Row, *_: Any) -> Sheet:
    layer = next(name for name, entry in LAYERS.items() if row.name in entry.make.evaluators)
    return {"example": f"seqjax explain {layer} --evaluator {row.name}"}


SHEETS: dict[Kind, Callable[..., Sheet]] = {
    "layers": layer_sheet,
    "ops": op_sheet,
    "tasks": task_sheet,
    "learners": learner_sheet,
    "recipes": recipe_sheet,
    "models": model_sheet,
    "optimisers": optimiser_sheet,
    "evaluators": evaluator_sheet,
    "theory": theory_sheet,
}


def rows_of(name: str) -> dict[Kind, Row]:
    """The rows of that name, by the table that they stand in."""
    return {kind: row for kind, rows in TABLES.items() for row in rows() if row.name == name}


def changed(config: Any, default: Any) -> dict[str, Any]:
    """section.field -> value, where the configs differ."""
    one, other = asdict(config), asdict(default)
    return {
        f"{section}.{field}": value
        for section, fields in one.items()
        for field, value in fields.items()
        if value != other[section][field]
    }


def documented(made: Any) -> str:
    """Docstring of the module, and of the class or function if it has its own."""
    text = [inspect.cleandoc(sys.modules[made.__module__].__doc__ or "")]
    if "__doc__" in vars(made) if inspect.isclass(made) else made.__doc__:
        text.append(inspect.cleandoc(made.__doc__ or ""))
    return "\n\n".join(text).strip()


def _brought(made: Any) -> str:
    """How a command learns of what is not of the package."""
    name = made.__module__
    if name.startswith("seqjax."):
        return ""
    return f" --import {sys.modules[name].__file__ if name.startswith(PREFIX) else name}"


def _ops_of(made: type[Layer]) -> tuple[str, ...]:
    return (*getattr(made, "ops", ()), *getattr(made, "side_ops", ()))


def _declared(function: Any, hints: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters
    return [(name, hint, parameters[name].default) for name, hint in hints.items()]


def _range(layer: str, name: str, hint: Any) -> str:
    """What the annotation declares; of a text its choices, which the constructor names when it
    refuses one that it does not know."""
    if name in ("layer", "layers"):
        return "a name of LAYERS, or (name, options)" + (", of each" if name == "layers" else "")
    words = describe(hint)
    if not words.startswith("a text"):
        return words
    try:
        build = factory((layer, {name: "?"}))
        nnx.eval_shape(lambda: build(64, rngs=nnx.Rngs(0)))
    except Exception as error:
        found = re.search(r"\(known: (.*)\)", str(error))
        return words.replace("a text", found[1].replace(", ", " | "), 1) if found else words
    return words


def _options(function: Callable[..., Any], document: Any = None) -> list[dict[str, str]]:
    """The arguments that have a default."""
    text = inspect.getdoc(document or function) or ""
    hints: Mapping[str, Any] = {}
    with suppress(NameError, TypeError):  # annotations that are for type checkers only
        hints = get_type_hints(function, include_extras=True)
    return [
        {"name": name, "default": _shown(parameter.default),
         "range": "" if "something else" in (words := describe(hints.get(name))) else words,
         "meaning": described(name, text)}
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty
    ]  # fmt: skip


def described(name: str, document: str) -> str:
    """What stands after "name:" in a docstring, and on the lines below that are indented more."""
    lines = document.splitlines()
    for n, line in enumerate(lines):
        if found := re.match(rf"( *)`?{name}`?: +(.*)", line):
            deeper = re.compile(f"{found[1]} +")
            more = itertools.takewhile(deeper.match, lines[n + 1 :])
            return " ".join(" ".join([found[2], *more]).split())
    return ""


def _call(function: Callable[..., Any]) -> str:
    """Its signature without annotations: learner(cell, loss, *, chunks=None)."""
    signature = inspect.signature(function)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return f"{function.__name__}{inspect.Signature(plain)}"


def counted(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Lines, of equal ones how many: what a layer repeats is one line."""
    return ["  ".join(words) + (f"  x {n}" if n > 1 else "") for words, n in Counter(rows).items()]


def shape_of(leaf: Any, batched: bool = False) -> str:
    return f"{leaf.dtype} {list(leaf.shape[batched:])}"


def _shown(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, LayerConfig):
        return value.name
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)
