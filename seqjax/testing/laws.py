"""The laws of a layer, one by one: what of its answers is compared, and what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.flow import Flow
from seqjax.nn.recurrent import Associative, Recurrent
from seqjax.testing.cases import Answer, Cases
from seqjax.testing.promises import (
    check_jacobian,
    check_monoid,
    check_shapes,
    distance,
    gap_of,
)

Gap = tuple[float, int | None]  # how far, and the first step that is
Trial = Iterator[tuple[str, Gap]]  # what is compared, and how far it is apart


class Law(NamedTuple):
    """A law: how it is tried, what it takes to break it, and whether it is of causal layers."""

    trial: Callable[[Cases], Trial]
    cause: str = ""
    causal: bool = False


def compare(cases: Cases, found: Answer, expected: Answer, first: int = 0) -> Trial:
    """Outputs by step, then the states."""
    (y, h), (z, k) = found, expected
    gaps = gap_of(y, z).max(axis=(0, 2), initial=0)
    worst = float(gaps.max(initial=0))
    broken = np.flatnonzero(~(gaps <= cases.tolerance))
    yield "", (worst, first + int(broken[0]) if len(broken) else None)
    if h is not None:
        yield " in the state after the last step,", (float(distance(h, k)), None)


def promises(cases: Cases) -> Trial:
    layer, given = cases.layer, (jnp.asarray(cases.x[0, :3]), _first(cases.h))
    known: dict[str, Any] = dict(tolerance=cases.tolerance, name=type(layer).__name__)
    if isinstance(layer, Associative) and not _scans_a_part(layer):
        elements = jax.jit(lambda x: jax.vmap(layer.lift)(layer.driven(x, Flow())))(given[0])

        def canonical(h):
            return _first(layer.canonical(jax.tree.map(lambda v: v[None], h)))

        check_monoid(layer.monoid, elements, given[1], canonical=canonical, **known)
    elif isinstance(layer, Recurrent) and "newton" in layer.evaluators:
        z = _first(layer.driven(given[0], Flow()))
        check_jacobian(layer.step, given[1], z, layer.jacobian, **known)
    yield "", (0.0, None)


def _scans_a_part(layer: Associative) -> bool:
    """Whether the monoid acts on a part of the state: the layer has a scan of its own then."""
    return isinstance(layer.initial(), tuple) and type(layer).states is not Associative.states


def shapes_and_dtypes(cases: Cases) -> Trial:
    check_shapes(cases.layer)
    yield "", (0.0, None)


def no_steps(cases: Cases) -> Trial:
    y, h = cases.run.nothing
    given = np.zeros((len(y), 0, cases.layer.out_features))
    yield "", (0.0 if y.shape == given.shape else np.inf, None)
    h = jax.tree.map(lambda v: v[: cases.B], h)
    yield " in the state,", (float(distance(h, cases.h)), None)


def examples_apart(cases: Cases) -> Trial:
    yield from compare(cases, *cases.among_others())


def causality(cases: Cases) -> Trial:
    whole, future, ahead = (
        (cases.answers[name][0][:, : cases.cut], None) for name in ("whole", "future", "ahead")
    )
    yield from compare(cases, future, whole)
    for _, gap in compare(cases, ahead, whole):
        yield " with NaNs ahead,", gap


def split_stream(cases: Cases) -> Trial:
    x, cut = cases.x, cases.cut
    first, h, _ = cases.part(x[:, :cut], cases.h)
    second, _, end = cases.part(x[:, cut:], h)
    joined = np.concatenate([first, second], axis=1), end
    yield from compare(cases, joined, cases.answers["whole"])


def single_steps(cases: Cases) -> Trial:
    yield from compare(cases, cases.pieces[0], cases.answers["whole"])


def reset(cases: Cases) -> Trial:
    y, end = cases.answers["reset"]
    bounds = [0, *cases.resets, cases.T]
    for n, (a, b) in enumerate(zip(bounds, bounds[1:])):
        if n == 0 and cases.layer.causal:
            continue  # what causality and single steps have seen
        z, k = cases.pieces[2 + n]
        # a layer that sees ahead has two ends: its state is of no piece alone
        last = end if b == cases.T and cases.layer.causal else None
        yield from compare(cases, (y[:, a:b], last), (z, k), first=a)


def nan_before_reset(cases: Cases) -> Trial:
    (y, end), (z, k) = cases.answers["nan"], cases.answers["reset"]
    a, end = cases.resets[0], end if cases.layer.causal else None
    yield from compare(cases, (y[:, a:], end), (z[:, a:], k), first=a)


def masked_step(cases: Cases) -> Trial:
    (y, end), kept = cases.answers["mask"], cases.kept
    for what, (gap, step) in compare(cases, (y[:, kept], end), cases.pieces[1]):
        yield what, (gap, None if step is None else int(kept[step]))


def masked_output(cases: Cases) -> Trial:
    y = cases.answers["mask"][0][:, list(cases.left_out)]
    yield "", (float(distance(y, np.zeros_like(y))), None)


def finite(cases: Cases) -> Trial:
    for what, case in ((" at inputs of zero,", "silence"), ("", "extreme")):
        y, end = cases.raw[case]
        for where, gap in compare(cases, (y, end), (np.nan_to_num(y), end)):
            yield what + where, gap


def gradients(cases: Cases) -> Trial:
    params, x, states = cases.run.gradient
    for name, g in zip(cases.given, np.split(x, len(cases.given))):
        what = " at inputs of zero," if name == "silence" else ""
        yield what, (float(distance(g, g)), None)
    yield "", (float(distance((params, states), (params, states))), None)


def reached(cases: Cases) -> dict[str, float]:
    """0 for each parameter that has a gradient, or no numbers, and inf for one that has none."""
    leaves = jax.tree_util.tree_leaves_with_path(cases.run.gradient[0])
    return {
        jax.tree_util.keystr(at): 0.0 if np.any(g != 0) or not g.size else np.inf
        for at, g in leaves
    }


def parameters(cases: Cases) -> Trial:
    yield "", (0.0, None)
    for path, gap in reached(cases).items():
        if "'h0'" not in path:
            yield f" of {path},", (gap, None)


def learned_start(cases: Cases) -> Trial:
    gaps = [gap for path, gap in reached(cases).items() if "'h0'" in path]
    yield "", (min(gaps, default=0.0), None)


def evaluators(cases: Cases) -> Trial:
    first, *others = cases.layer.evaluators
    yield "", (0.0, None)
    if not others:
        return
    expected, *derivatives = cases.meaning(first)
    for evaluator in others:
        found, *moved = cases.meaning(evaluator)
        for what, gap in compare(cases, found, expected):
            yield f' ("{evaluator}"){what}', gap
        for what, d, e in zip(("gradient", "tangent"), moved, derivatives):
            yield f' ("{evaluator}") in its {what},', (float(distance(d, e)), None)


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda v: v[0], tree)


PAST = "The state lacks something of the past, or steps of a call count."
LAWS = {  # in the order they are tried
    "shapes and dtypes": Law(shapes_and_dtypes),
    "promises": Law(promises),
    "no steps change nothing": Law(
        no_steps, "A call of no steps has no outputs and returns its state."
    ),
    "examples apart": Law(  # before those that follow: their cases share a batch
        examples_apart, "An example depends on another one of its batch, or on its place there."
    ),
    "causality": Law(
        causality,
        "An output depends on inputs after it; a layer that may has causal = False.",
        True,
    ),
    "split stream == whole": Law(split_stream, PAST, True),
    "single steps == whole": Law(single_steps, PAST, True),
    "reset == fresh start": Law(
        reset, "A part was called without the resets, or without its start."
    ),
    "NaN before a reset": Law(
        nan_before_reset, "The past is multiplied by zero, not selected away."
    ),
    "masked step == step left out": Law(
        masked_step, "A part was called without the mask, or the step still counts."
    ),
    "masked output == 0": Law(
        masked_output, "Outputs of masked steps were written after the mask was applied."
    ),
    "finite at extremes": Law(finite, "Something overflows at inputs of 1e4, or is 0 / 0 at 0."),
    "gradients are finite": Law(
        gradients, "A value is finite, its derivative is not: sqrt(0), 0 * inf, log(0)."
    ),
    "parameters have gradients": Law(
        parameters, "It is not used, or its gradient is stopped; what is not trained is no Param."
    ),
    "learned h0 has a gradient": Law(
        learned_start, "The start is not used; `learned` names the field that is, or none."
    ),
    "evaluators agree": Law(
        evaluators, "The first evaluator is the meaning; this one computes something else."
    ),
}
