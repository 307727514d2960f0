"""What the laws of a layer compare: its answers in a few cases, all of them one batch.

Compiling is what a layer costs, not running it. So there is one program for a stretch of the
sequence, one for all cases with their gradient, one for steps taken one by one, each compiled when
a law first needs it, and one for each evaluator. What they return are arrays of numpy: cut up and
compared, they compile nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.core.flow import Source
from seqjax.nn.base import Layer, cast_parameters, has

Answer = tuple[Any, Any]  # outputs [B, T, out_features] and a state


class Run(NamedTuple):
    """What the program of all cases returns."""

    raw: Answer  # of all
    calm: Answer  # of all but the extreme, with canonical states: those of extremes may overflow
    gradient: tuple[Any, Any, Any]  # of parameters, inputs and states, over the calm ones
    nothing: Answer  # of a call of no steps


class Cases:
    """A copy of the layer in float64, off its first values (`moved`), and B examples of T steps: a
    stream is split at `cut`, the past forgotten before `resets`, `left_out` is masked."""

    def __init__(self, layer: Layer, batch: int, steps: int, tolerance: float):
        self.layer, self.tolerance = moved(layer), tolerance
        self.B, self.T = batch, steps
        # a prime, so that no segment or chunk ends there; of twice as many steps both parts of the
        # stream are one program
        self.cut = max(n for n in range(2, steps // 2 + 1) if all(n % k for k in range(2, n)))
        if layer.causal:
            self.resets = 5, 6, 7, steps - 4  # next to each other: closer than any segment
            self.left_out = 1, 2, 6, steps - 3
        else:  # pieces as long as a part
            self.resets = (self.cut,)
            self.left_out = tuple(range(1, steps, 2))
        self.kept = np.setdiff1d(np.arange(steps), self.left_out)
        self.draw = np.random.default_rng(1)
        self.x, self.other = (self.normal(batch, steps, layer.features) for _ in range(2))

    def normal(self, *shape: int) -> np.ndarray:
        return self.draw.normal(size=shape)

    def part(self, x: Any, h: Any) -> tuple[Any, Any, Any]:
        """Outputs, the state to go on with, and its canonical form."""
        return numbers(_part(self.layer, x, h))

    @functools.cached_property
    def fresh(self) -> Any:
        return numbers(_fresh(self.layer, self.B))

    @functools.cached_property
    def h(self) -> Any:
        """A state the layer can be in, different in each example; the start, if it sees ahead."""
        if not self.layer.causal:
            return self.fresh
        return self.part(self.normal(self.B, self.cut, self.layer.features), self.fresh)[1]

    @functools.cached_property
    def flags(self) -> tuple[np.ndarray, ...]:
        """Never, always, at the resets, but where something is left out: bool [B, T]."""
        never, always = (np.full((self.B, self.T), v) for v in (False, True))
        reset, keep = never.copy(), always.copy()
        reset[:, list(self.resets)], keep[:, list(self.left_out)] = True, False
        return never, always, reset, keep

    @functools.cached_property
    def given(self) -> dict[str, tuple[Any, ...]]:
        """name -> (x, h, resets, mask)."""
        never, always, reset, keep = self.flags
        x, h, nan, future, ahead = self.x, self.h, self.x.copy(), self.x.copy(), self.x.copy()
        nan[:, self.resets[0] - 1] = np.nan
        future[:, self.cut :] = self.other[:, self.cut :]
        if self.layer.causal:
            ahead[:, self.cut :] = np.nan
        return {
            "whole": (x, h, never, always),
            "future": (future, h, never, always),
            "ahead": (ahead, h, never, always),
            "reset": (x, h, reset, always),
            "nan": (nan, h, reset, always),
            # what is left out holds NaN, and resets
            "mask": (np.where(keep[:, :, None], x, np.nan), h, ~keep, keep),
            "silence": (np.zeros_like(x), self.fresh, never, always),
            "extreme": (1e4 * np.sign(x), h, never, always),  # the last: see `Run`
        }

    @functools.cached_property
    def run(self) -> Run:
        return self._run(together(self.given.values()))

    def _run(self, given: tuple[Any, ...]) -> Run:
        return Run(*numbers(_cases(self.layer, *given, left=self.B)))

    @functools.cached_property
    def answers(self) -> dict[str, Answer]:
        return dict(zip(self.given, apart(self.run.calm, self.B)))

    @functools.cached_property
    def raw(self) -> dict[str, Answer]:
        return dict(zip(self.given, apart(self.run.raw, self.B)))

    def among_others(self) -> tuple[Answer, Answer]:
        """The first example of all, and the same as the last one of a batch that is another."""
        x, *beside = jax.tree.map(lambda v: v[::-1], together(self.given.values()))
        x[:-1] = self.normal(*x.shape)[:-1]
        return _examples(self._run((x, *beside)).raw, -1), _examples(self.run.raw, 0)

    @functools.cached_property
    def pieces(self) -> list[Answer]:
        """The oracle of the whole, of what is kept, and of what follows each reset: steps taken one
        by one, each with its state; all at once if the layer sees the future."""
        bounds = [0, *self.resets, self.T]
        spans = [range(self.T), self.kept, *map(range, bounds, bounds[1:])]
        starts = [self.h, self.h, self.h, *[self.fresh] * len(self.resets)]
        if not self.layer.causal:
            of = [(self.x[:, span], h) for span, h in zip(spans[1:], starts[1:])]
            return [self.answers["whole"], *(self.part(*given)[::2] for given in of)]
        xs = [np.concatenate([self.x[:, span], self.other], 1)[:, : self.T] for span in spans]
        y, states = numbers(_steps(self.layer, *together(zip(xs, starts))))
        ends = apart((y, jax.tree.map(lambda v: np.swapaxes(v, 0, 1), states)), self.B)
        lengths = map(len, spans)
        return [
            (y[:, :n], jax.tree.map(lambda v, n=n: v[:, n - 1], h))
            for (y, h), n in zip(ends, lengths)
        ]

    def meaning(self, evaluator: str) -> tuple[Answer, Any, Any]:
        """Value, gradient and tangent by one evaluator, with resets and masked steps inside."""
        resets, mask = self.flags[2:]
        return numbers(_meaning(self.layer, self.x, self.h, resets, mask, evaluator=evaluator))


def moved(layer: Layer) -> Layer:
    """A copy in float64 with a learned initial state, all parameters off their first values."""
    layer = nnx.clone(layer)
    layer.learn_initial()
    layer = cast_parameters(layer, jnp.float64)
    draw = np.random.default_rng(0)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    params = jax.tree.map(
        lambda p: jnp.asarray(p + 0.1 * draw.normal(size=p.shape)), numbers(params)
    )
    return nnx.merge(graph, params, rest)


def numbers(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def together(cases: Iterable[Any]) -> Any:
    """Cases of B examples each, as one batch."""
    return jax.tree.map(lambda *v: np.concatenate(v), *cases)


def apart(tree: Any, batch: int) -> list[Any]:
    """A batch, as cases of so many examples."""
    count = len(jax.tree.leaves(tree)[0]) // batch
    return [_examples(tree, slice(n * batch, (n + 1) * batch)) for n in range(count)]


def _examples(tree: Any, which: Any) -> Any:
    keep = [which] if isinstance(which, int) else which
    return jax.tree.map(lambda v: v[keep], tree)


def beside(layer: Layer, x: Any) -> dict[str, Any]:
    """What a layer that looks at a source is given with x: one of 5 steps, 4 of them there."""
    if not has(layer, "sourced"):
        return {}
    y = np.random.default_rng(3).normal(size=(5, layer.features)).astype(x.dtype)
    batch = jax.tree.map(lambda v: jnp.broadcast_to(v, (len(x), *v.shape)), (y, np.arange(5) != 1))
    return {"source": Source(*batch)}


# The programs.


@functools.partial(jax.jit, static_argnames="batch")
def _fresh(layer: Layer, batch: int) -> Any:
    given = beside(layer, np.zeros(batch))
    return layer.batch_state(batch, jnp.float64, given.get("source"))


@jax.jit
def _part(layer: Layer, x: Any, h: Any) -> tuple[Any, Any, Any]:
    y, end = layer(x, h, **beside(layer, x))
    return y, end, layer.canonical(end)


@functools.partial(jax.jit, static_argnames="left")
def _cases(layer: Layer, x: Any, h: Any, resets: Any, mask: Any, left: int) -> Any:
    """left: the last examples, which are extreme: their derivatives may be, too."""
    graph, params, rest = nnx.split(layer, nnx.Param, ...)

    def weighed(params, x, leaves):
        layer = nnx.merge(graph, params, rest)
        y, end = layer(x, put_inexact(h, leaves), resets, mask, **beside(layer, x))
        calm, held = jax.tree.map(lambda v: v[:-left], (y, end))
        calm = calm, layer.canonical(held)
        return weigh(calm), ((y, end), calm)

    gradient, found = jax.grad(weighed, (0, 1, 2), has_aux=True)(params, x, inexact(h))
    nothing = layer(x[:, :0], h, resets[:, :0], mask[:, :0], **beside(layer, x))
    return *found, gradient, nothing


@jax.jit
def _steps(layer: Layer, x: Any, h: Any) -> Answer:
    """Outputs [B, T, ...] and states [T, B, ...] of calls with one step each."""

    def one(h, x_t):
        y, h = layer(x_t[:, None], h, **beside(layer, x_t))
        return h, (y[:, 0], layer.canonical(h))

    y, states = jax.lax.scan(one, h, jnp.swapaxes(x, 0, 1))[1]
    return jnp.swapaxes(y, 0, 1), states


@functools.partial(jax.jit, static_argnames="evaluator")
def _meaning(layer: Layer, x: Any, h: Any, resets: Any, mask: Any, evaluator: str) -> Any:
    graph, params, rest = nnx.split(layer, nnx.Param, ...)

    def weighed(params, x, leaves):
        layer = nnx.merge(graph, params, rest)
        known = beside(layer, x)
        y, end = layer(x, put_inexact(h, leaves), resets, mask, evaluator=evaluator, **known)
        answer = y, layer.canonical(end)
        return weigh(answer), answer

    primals = params, x, inexact(h)
    gradient, answer = jax.grad(weighed, (0, 1, 2), has_aux=True)(*primals)
    tangents = jax.tree.map(jnp.cos, primals)
    return answer, gradient, jax.jvp(lambda *p: weighed(*p)[0], primals, tangents)[1]


def weigh(tree: Any) -> Any:
    """One number out of a tree, with fixed random weights so that nothing cancels."""
    draw = np.random.default_rng(2)
    return sum(
        jnp.sum(draw.normal(size=v.shape) * (v.real + 0.7 * v.imag if jnp.iscomplexobj(v) else v))
        for v in inexact(tree)
    )


def inexact(tree: Any) -> list[Any]:
    return [v for v in jax.tree.leaves(tree) if jnp.issubdtype(v.dtype, jnp.inexact)]


def put_inexact(tree: Any, leaves: Iterable[Any]) -> Any:
    given = iter(leaves)
    put = lambda v: next(given) if jnp.issubdtype(v.dtype, jnp.inexact) else v  # noqa: E731
    return jax.tree.map(put, tree)
