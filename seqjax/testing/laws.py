"""The laws of every layer, tried in order: what `check_layer` does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.core.flow import Flow
from seqjax.nn.base import Layer, cast_parameters
from seqjax.nn.recurrent import Associative, Recurrent
from seqjax.testing.promises import LawBroken, check_jacobian, check_monoid, distance, gap_of

LAWS = {  # in the order they are tried; what it takes to break each
    "promises": "",
    "shapes and dtypes": "",
    "examples apart": "An example depends on another one of its batch.",
    "causality": "An output depends on inputs after it; a layer that may has causal = False.",
    "split stream == whole": "The state lacks something of the past, or steps of a call count.",
    "single steps == whole": "The state lacks something of the past, or steps of a call count.",
    "reset == fresh start": "A part was called without the resets, or without its start.",
    "NaN before a reset": "The past is multiplied by zero, not selected away.",
    "masked step == step left out": "A part was called without the mask, or the step still counts.",
    "masked output == 0": "Outputs of masked steps were written after the mask was applied.",
    "evaluators agree": "The first evaluator is the meaning; this one computes something else.",
    "finite at extremes": "Something overflows at inputs of 1e4.",
    "gradients are finite": "A value is finite, its derivative is not: sqrt(0), 0 * inf, log(0).",
}
Gap = tuple[float, int | None]  # how far, and the first step that is


def check_layer(
    layer: Layer,
    *,
    batch: int = 2,
    steps: int = 17,
    exempt: Collection[str] = (),
    raises: bool = True,
    tolerance: float = 1e-8,
) -> dict[str, float]:
    """Try all LAWS of a layer, in order, up to the first that is broken: law -> how far off it is.

    It runs in float64, on a copy whose parameters are moved off their first values and whose
    initial state is learned. Later laws inherit the fault of an earlier one, so the first that is
    broken ends it: with LawBroken, or, with raises=False, as the last entry returned.

    batch: at least 2 examples; steps: at least 12, more than a segment or a chunk of the layer.
    exempt: laws that are not to be tried. Compiling is the cost: seconds for a small layer.
    """
    unknown_laws = sorted(set(exempt) - set(LAWS))
    if unknown_laws:
        raise ValueError(f"exempt from {unknown_laws}, the laws are {tuple(LAWS)}")
    if batch < 2 or steps < 12:
        raise ValueError(f"the laws need batch >= 2 and steps >= 12, got {batch} and {steps}")
    name, found = type(layer).__name__, {}
    with jax.enable_x64(True):
        for law, trial in _Trials(layer, batch, steps, tolerance).laws():
            if law in exempt:
                continue
            try:
                for what, (gap, step) in trial():
                    found[law] = max(gap, found.get(law, 0.0))
                    if not gap <= tolerance:
                        at = "" if step is None else f" first at step {step},"
                        message = f'{name} breaks "{law}"{what}{at} by {gap:.2g}. {LAWS[law]}'
                        raise LawBroken(message.strip(), law, gap)
            except LawBroken as broken:
                found[law] = broken.gap
                if raises:
                    raise LawBroken(str(broken), law, broken.gap, found) from None
                break
    return found


class _Trials:
    """The cases of one layer: compiled once, each law reads what it compares."""

    def __init__(self, layer: Layer, batch: int, steps: int, tolerance: float):
        self.B, self.T, self.tolerance = batch, steps, tolerance
        # a prime: no segment or chunk ends there
        self.cut = max(n for n in range(2, steps - 4) if all(n % k for k in range(2, n)))
        self.resets = 5, 6, 7, steps - 4  # next to each other: closer than any segment
        self.left_out = 1, 2, 6, steps - 3
        self.layer = _moved(layer)
        self.draw = np.random.default_rng(1)
        self.x, self.other = (self.normal(batch, steps, layer.features) for _ in range(2))
        self.fresh = self.layer.batch_state(batch, jnp.float64)
        self.call = jax.jit(lambda layer, *arguments: layer(*arguments))

    def normal(self, *shape: int) -> np.ndarray:
        return self.draw.normal(size=shape)

    def run(self, x, h, resets=None, mask=None):
        """A call, compiled, whose answer comes as arrays of numpy: cut up, they compile nothing."""
        return self.numbers(self.call(self.layer, jnp.asarray(x), h, resets, mask))

    def laws(self) -> Iterator[tuple[str, Callable[[], Iterator[tuple[str, Gap]]]]]:
        trials = {
            "promises": self.promises,
            "shapes and dtypes": self.shapes,
            "examples apart": self.apart,  # first: the cases below share a batch
            "causality": self.causality,
            "split stream == whole": self.split,
            "single steps == whole": self.steps,
            "reset == fresh start": self.reset,
            "NaN before a reset": self.nan,
            "masked step == step left out": self.mask,
            "masked output == 0": self.masked_output,
            "evaluators agree": self.evaluators,
            "finite at extremes": self.extremes,
            "gradients are finite": self.gradients,
        }
        streams = ("causality", "split stream == whole", "single steps == whole")
        return iter(
            (law, trial) for law, trial in trials.items() if self.layer.causal or law not in streams
        )

    # what is run: one batch of cases, and one of single steps

    @functools.cached_property
    def h(self):
        """A state the layer can be in, different in each example; the start, if it sees ahead."""
        if not self.layer.causal:
            return self.numbers(self.fresh)
        return self.run(self.normal(self.B, self.T, self.layer.features), self.fresh)[1]

    @functools.cached_property
    def flags(self):
        never, always = (np.full((self.B, self.T), v) for v in (False, True))
        reset, keep = never.copy(), always.copy()
        reset[:, list(self.resets)], keep[:, list(self.left_out)] = True, False
        return never, always, reset, keep

    @functools.cached_property
    def cases(self):
        """name -> (outputs, state) of cases that are one batch; `self.h` is where all begin."""
        never, always, reset, keep = self.flags
        x, bad, future = self.x, self.x.copy(), self.x.copy()
        bad[:, self.resets[0] - 1] = np.nan
        future[:, self.cut :] = self.other[:, self.cut :]
        given = {
            "whole": (x, never, always),
            "future": (future, never, always),
            "reset": (x, reset, always),
            "nan": (bad, reset, always),
            # what is left out holds NaN, and resets
            "mask": (np.where(keep[:, :, None], x, np.nan), ~keep, keep),
            "extreme": (1e4 * np.sign(x), never, always),
        }
        xs, resets, masks = (np.concatenate(v) for v in zip(*given.values()))
        h = jax.tree.map(lambda v: np.concatenate([v] * len(given)), self.h)
        y, end = self.run(xs, h, resets, masks)
        return {
            name: jax.tree.map(lambda v, n=n: v[n * self.B : (n + 1) * self.B], (y, end))
            for n, name in enumerate(given)
        }

    def alone(self, x, h):
        """The oracle: one step after the other; all at once if the layer sees the future."""
        if not self.layer.causal:
            return self.run(x, h)
        ys = []
        for t in range(x.shape[1]):
            y, h = self.run(x[:, t : t + 1], h)
            ys.append(y)
        return np.concatenate(ys, axis=1), h

    @staticmethod
    def numbers(tree):
        return jax.tree.map(np.asarray, tree)

    # the laws

    def compare(self, found, expected, first: int = 0) -> Iterator[tuple[str, Gap]]:
        """Outputs by step, then the states."""
        (y, h), (z, k) = found, expected
        gaps = gap_of(np.asarray(y), np.asarray(z)).max(axis=(0, 2), initial=0)
        worst = float(gaps.max(initial=0))
        broken = np.flatnonzero(~(gaps <= self.tolerance))
        yield "", (worst, first + int(broken[0]) if len(broken) else None)
        if h is not None:
            states = distance(*(self.numbers(self.layer.canonical(s)) for s in (h, k)))
            yield " in the state after the last step,", (float(states), None)

    def promises(self):
        layer = self.layer
        x = jnp.asarray(self.x[0, :3])
        if isinstance(layer, Associative):
            h = jax.tree.map(lambda v: v[0], self.h)
            elements = jax.vmap(layer.lift)(layer.driven(x, Flow()))
            check_monoid(
                layer.monoid,
                elements,
                h,
                tolerance=self.tolerance,
                canonical=lambda h: jax.tree.map(
                    lambda v: v[0], layer.canonical(jax.tree.map(lambda v: v[None], h))
                ),
                name=type(layer).__name__,
            )
        elif isinstance(layer, Recurrent) and "newton" in layer.evaluators:
            h = jax.tree.map(lambda v: v[0], self.h)
            z = jax.tree.map(lambda v: v[0], layer.driven(x, Flow()))
            check_jacobian(
                layer.step,
                h,
                z,
                layer.jacobian,
                tolerance=self.tolerance,
                name=type(layer).__name__,
            )
        yield "", (0.0, None)

    def shapes(self):
        for dtype in (jnp.bfloat16, jnp.float32):
            layer = cast_parameters(self.layer, jnp.float32)
            x = jax.ShapeDtypeStruct(self.x.shape, dtype)
            h = jax.eval_shape(lambda layer=layer, d=dtype: layer.batch_state(self.B, d))
            y, new = jax.eval_shape(lambda x, h, layer=layer: layer(x, h), x, h)
            kinds = [[(v.shape, v.dtype) for v in jax.tree.leaves(t)] for t in (h, new)]
            if y.dtype != dtype or kinds[0] != kinds[1]:
                message = (
                    f"{type(self.layer).__name__} returns {y.dtype} and a state of {kinds[1]} for "
                    f"x of {x.dtype} and a state of {kinds[0]}."
                )
                raise LawBroken(message, "shapes and dtypes", float("inf"))
        none = self.run(self.x[:, :0], self.h)
        yield " for no steps,", (float(distance(none[1], self.h)), None)

    def apart(self):
        others = np.concatenate([self.x[:1], self.other[1:]])
        found = (self.run(x, self.h) for x in (others, self.x))
        yield from self.compare(*(jax.tree.map(lambda v: v[:1], case) for case in found))

    def causality(self):
        whole, future = self.cases["whole"][0], self.cases["future"][0]
        yield from self.compare((future[:, : self.cut], None), (whole[:, : self.cut], None))

    def split(self):
        x, cut = self.x, self.cut
        first, h = self.run(x[:, :cut], self.h)
        second, end = self.run(x[:, cut:], h)
        joined = np.concatenate([first, second], axis=1), end
        yield from self.compare(joined, self.cases["whole"])

    def steps(self):
        yield from self.compare(self.alone(self.x, self.h), self.cases["whole"])

    def reset(self):
        y, end = self.cases["reset"]
        bounds = [0, *self.resets, self.T]
        for n, (a, b) in enumerate(zip(bounds, bounds[1:])):
            if n == 0 and self.layer.causal:
                continue  # what causality and single steps have seen
            # a layer that sees ahead has two ends: its state is of no piece alone
            last = end if b == self.T and self.layer.causal else None
            expected = self.alone(self.x[:, a:b], self.fresh if n else self.h)
            yield from self.compare((y[:, a:b], last), expected, first=a)

    def nan(self):
        (y, end), (z, k) = self.cases["nan"], self.cases["reset"]
        a, end = self.resets[0], end if self.layer.causal else None
        yield from self.compare((y[:, a:], end), (z[:, a:], k), first=a)

    def mask(self):
        kept = np.flatnonzero(self.flags[3][0])
        y, end = self.cases["mask"]
        expected = self.alone(self.x[:, kept], self.h)
        for what, (gap, step) in self.compare((y[:, kept], end), expected):
            yield what, (gap, None if step is None else int(kept[step]))

    def masked_output(self):
        y = self.cases["mask"][0][:, list(self.left_out)]
        yield "", (float(distance(y, np.zeros_like(y))), None)

    def evaluators(self):
        """In value and in gradient, with a reset and a masked step inside."""
        reset, keep = map(jnp.asarray, self.flags[2:])
        graph, params, rest = nnx.split(self.layer, nnx.Param, ...)
        weight = self.normal(self.B, self.T, self.layer.out_features)

        @functools.partial(jax.jit, static_argnames="evaluator")
        def run(params, x, h, evaluator):
            def loss(params, x):
                layer = nnx.merge(graph, params, rest)
                y, end = layer(x, h, reset, keep, evaluator=evaluator)
                return jnp.sum(weight * y), (y, end)

            return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

        meaning, *others = self.layer.evaluators
        yield "", (0.0, None)
        if not others:
            return
        gradient, expected = run(params, self.x, self.h, evaluator=meaning)
        for evaluator in others:
            moved, found = run(params, self.x, self.h, evaluator=evaluator)
            for what, gap in self.compare(found, expected):
                yield f' ("{evaluator}"){what}', gap
            gap = float(distance(self.numbers(moved), self.numbers(gradient)))
            yield f' ("{evaluator}") in its gradient,', (gap, None)

    def extremes(self):
        y, end = self.cases["extreme"]
        yield from self.compare((y, end), (np.nan_to_num(y), end))

    def gradients(self):
        graph, params, rest = nnx.split(self.layer, nnx.Param, ...)
        reset, keep = map(jnp.asarray, self.flags[2:])

        @jax.jit
        def gradient(params, x):
            def loss(params, x):
                layer = nnx.merge(graph, params, rest)
                return jnp.sum(jnp.sin(layer(x, None, reset, keep)[0]))

            return jax.grad(loss, argnums=(0, 1))(params, x)

        for what, x in (("", self.x), (" at inputs of zero,", np.zeros_like(self.x))):
            found = self.numbers(gradient(params, x))
            yield what, (float(distance(found, found)), None)


def _moved(layer: Layer) -> Layer:
    """A copy in float64 with a learned initial state, all parameters off their first values."""
    layer = nnx.clone(layer)
    layer.learn_initial()
    layer = cast_parameters(layer, jnp.float64)
    draw = np.random.default_rng(0)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    moved = jax.tree.map(lambda p: p + 0.1 * draw.normal(size=p.shape), params)
    return nnx.merge(graph, moved, rest)
