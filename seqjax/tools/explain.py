"""`seqjax explain NAME`: which evaluator runs for a layer, an op or a monoid, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from tyro.conf import Positional

from seqjax import ops
from seqjax.core import monoid
from seqjax.core.common import unknown
from seqjax.core.ranges import Count
from seqjax.core.scan import explain as explain_scan
from seqjax.nn import Layer, Recurrent
from seqjax.ops.op import Call, Op, calls_met
from seqjax.tools.screen import print_json, print_table
from seqjax.zoo import LAYERS, make

FEATURES = 64  # of the layers looked at
UNKNOWN = 1024  # steps of an op that a layer runs only by the evaluators of another


Verdicts = dict[str, str]  # evaluator -> why it would run, or would not


class Part(NamedTuple):
    """An op, monoid or step that a module of a layer runs."""

    name: str
    module: str  # the class
    takes: bool  # the evaluator requested, where it has it; the others choose for themselves
    verdicts: Callable[[str], Verdicts]  # of a platform


def parts_of(layer: Layer) -> list[str]:
    """The ops, monoids and steps that the modules of a layer declare."""
    return list(dict.fromkeys(part.name for part in each_part(layer, {})))


def calls_of(layer: Layer, T: int, examples: int = 1) -> dict[str, Call]:
    """How a layer, whose parameters may be shapes only, first calls each op: by the op's name."""
    graph, parameters = nnx.split(layer)
    x = jax.ShapeDtypeStruct((examples, T, layer.features), jnp.float32)
    with calls_met() as met:
        jax.eval_shape(lambda parameters, x: nnx.merge(graph, parameters)(x), parameters, x)
    return {op.name: call for op, call in reversed(met)}


def each_part(layer: Layer, calls: Mapping[str, Call]) -> Iterator[Part]:
    """What the modules of a layer declare; calls: of its ops, those that are known."""
    for _, module in nnx.iter_modules(layer):
        here = type(module).__name__
        if isinstance(module, Recurrent) and "associative" not in module.evaluators:
            step = f"nonlinear with {module.jacobian} Jacobian"
            yield Part(step, here, True, partial(_step_verdicts, module.evaluators))
        own = getattr(module, "ops", ()) if isinstance(module, Layer) else ()
        for name in dict.fromkeys((*getattr(module, "ops", ()), *getattr(module, "side_ops", ()))):
            verdicts = partial(explain_scan, name)
            if name in ops.OPS:
                call = calls.get(name, Call(UNKNOWN, ""))
                verdicts = partial(op_verdicts, ops.OPS[name], call, None)
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


def shape_of(name: str, features: int = FEATURES, **options: Any) -> Layer:
    """A layer whose parameters are shapes only."""
    return nnx.eval_shape(lambda: make(name, features, **options))


def op_verdicts(op: Op, call: Call, evaluator: Any, platform: str) -> Verdicts:
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
        "elk": "only by name: newton in a trust region, for steps that expand",
        "parallel_backward": "only by name: gradients by scans, for parallel devices",
    }
    return {name: found[name] for name in evaluators}


def explain(
    name: Positional[str],
    T: Count = 2048,
    examples: Count = 1,
    evaluator: str | None = None,
    platform: Literal["cpu", "gpu", "tpu"] | None = None,
    json: bool = False,
) -> int:
    """Which evaluator would run, and why the others would not.

    Args:
        name: a layer, an op, or the structure of a monoid.
        T: the number of time steps.
        examples: how many sequences at once.
        evaluator: one that is requested by name: which parts take it, and what the others run.
        platform: a device that need not be present; by default this one.
        json: print JSON.
    """
    where = platform or jax.default_backend()
    algebras = [v for v in vars(monoid).values() if isinstance(v, monoid.Monoid)]
    structures = [algebra.structure for algebra in (*algebras, monoid.shift(2))]
    if name in LAYERS:
        found = _explain_layer(name, T, examples, where, evaluator)
    elif name in ops.OPS:
        call = Call(T, where, examples=examples)
        found = {name: op_verdicts(ops.OPS[name], call, None, where)}
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
    print_table(f"{name}, T = {T}, on {where}", ("part", "evaluator", "verdict"), lines)
    return 0


def layer_verdicts(
    layer: Layer, name: str, T: int, examples: int, platform: str
) -> dict[str, Verdicts]:
    """What a layer runs over T time steps: an op, monoid or step -> verdicts; under its own name
    the evaluators that are programs of its own."""
    parts = each_part(layer, calls_of(layer, T, examples))
    found = {part.name: part.verdicts(platform) for part in parts}
    own = _own(layer, found)
    why = "the layer's own" + (", only by name" if any(found.values()) else "")
    return {**found, name: dict.fromkeys(own, why)} if own else found


def _own(layer: Layer, found: Mapping[str, Verdicts]) -> list[str]:
    named = {evaluator for verdicts in found.values() for evaluator in verdicts}
    return [evaluator for evaluator in layer.evaluators if evaluator not in named]


def _explain_layer(
    name: str, T: int, examples: int, platform: str, evaluator: str | None
) -> dict[str, Verdicts]:
    layer = shape_of(name)
    if evaluator is None:
        return layer_verdicts(layer, name, T, examples, platform)
    if evaluator not in layer.evaluators:
        raise ValueError(unknown(f"evaluator of {name}", evaluator, layer.evaluators))
    each = [
        (part, part.verdicts(platform)) for part in each_part(layer, calls_of(layer, T, examples))
    ]
    found = {f"{part.name} of {part.module}": _requested(verdicts, evaluator, part.takes)
             for part, verdicts in each}  # fmt: skip
    own = _own(layer, {part.name: verdicts for part, verdicts in each})
    return {**found, name: {evaluator: "taken: the layer's own"}} if evaluator in own else found
