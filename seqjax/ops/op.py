"""The record of a meaning: one naive loop, its named evaluators and its named shapes.

An `Op` defines what a recurrence over time *means* (the naive loop, which is the oracle of every
test) and how it may be computed (the evaluators). Evaluators see one example,

    evaluate(xs, state, *, resets, start, **options) -> (outputs, state)

with `xs` a named tuple of arrays [T, ...], `resets` bool [T] or None, and `start` the state
a reset goes to (None: zeros). The batch axis, the direction of time, masked steps and dtypes are
handled here, once. Letters in shapes: B batch, T time, H heads, K key, V value, D channels,
N state size, G groups, C chunk.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from seqjax.core.axis import Axis, Summarised, relay, summary_wanted, varied
from seqjax.core.common import accumulation_dtype, unknown
from seqjax.core.forms import PLATFORMS, by_platform, examples_together, two_forms
from seqjax.core.mesh import Place, apart, placed
from seqjax.ops.arguments import (
    check_flags,
    check_number,
    is_array,
    is_float,
    like,
    with_fill,
)
from seqjax.ops.heads import read_in_groups
from seqjax.ops.quarantine import quarantined
from seqjax.ops.span import Span


@dataclass(frozen=True)
class Spec:
    """A named problem size: one row of the tests and of the benchmarks."""

    name: str
    sizes: Mapping[str, int]  # letter -> size
    options: Mapping[str, Any] = field(default_factory=dict)  # read by the op's `example`


@dataclass(frozen=True)
class Call:
    """What is known before an evaluator is chosen, and accepts or refuses.

    platform: "cpu", "gpu" or "tpu", which the program is lowered for. differentiated: whether a
    derivative is taken, which keeps states for it. examples: how many are run at once, by the op's
    batch axis and the layers that map over theirs. shapes: of the fields of xs for one example,
    [T, ...], as {"q": (T, H, K)}; dtype: of the inputs, before they are widened.
    """

    steps: int
    platform: str
    resets: bool = False
    masked: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    differentiated: bool = True
    examples: int = 1
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtype: Any = jnp.float32


def anywhere(call: Call) -> str | None:
    """The `supports` of an evaluator without conditions."""
    del call
    return None


@dataclass(frozen=True)
class Evaluator:
    """One way to compute an op. `supports` answers None, or the reason why it cannot run."""

    evaluate: Callable[..., Any]
    supports: Callable[[Call], str | None] = anywhere
    chunked: bool = True  # takes `chunk_size`


class Rule(NamedTuple):
    """One row of the table that chooses: the first rule that holds, its first that can run."""

    when: str
    holds: Callable[[Call], bool]
    order: tuple[str, ...]


STEPWISE_WHEN_SHORT = (
    Rule("at most 8 steps", lambda call: call.steps <= 8, ("sequential", "chunked")),
    Rule("more than 8 steps", lambda call: call.steps > 8, ("chunked", "sequential")),
)
# Measured on one core, T = 512, K = V = 16 to 128, batch 1 and 16: the loop takes 1.0 to 0.25 of
# the time of chunks, which pay off where their states need not be kept for the backward pass.
LOOP_FORWARD_ON_CPU = (
    Rule(
        "no derivative is taken, on CPU",
        lambda call: not call.differentiated and call.platform == "cpu",
        ("sequential", "chunked"),
    ),
    *STEPWISE_WHEN_SHORT,
)


class Choice(NamedTuple):
    """What was chosen, why, and why not each of the others."""

    evaluator: str
    why: str
    others: dict[str, str]

    def __str__(self) -> str:
        others = (f"  not {name}: {reason}" for name, reason in self.others.items())
        return "\n".join([f"{self.evaluator}: {self.why}", *others])


@dataclass(frozen=True)
class Op:
    """One meaning. `name` is also that of its public function, `seqjax.<name>`."""

    name: str
    reference: str
    structure: str  # of the transition from state to state, in words
    naive: Callable[..., Any]
    evaluators: Mapping[str, Evaluator]
    table: tuple[Rule, ...]
    fill: Any  # the inputs of a step that changes nothing, one scalar for each of xs
    specs: tuple[Spec, ...]
    example: Callable[[Spec, int], dict[str, Any]]  # (spec, seed) -> arguments, float64
    readers: tuple[str, ...] = ()  # of xs: those that only read the state
    grouped: bool = True  # readers may have more heads than there are states: `read_in_groups`
    # How many leading axes of xs (time, heads) a lost number does not spread over, see
    # `quarantined`. None: each channel is by itself, as fast as memory is, and left as it is.
    apart: int | None = None
    span: Span | None = None  # what a piece of the steps does to a state, for time over a mesh axis

    def choose(self, call: Call, evaluator: str | Sequence[str] | None = None) -> Choice:
        """Pick by the table (None), by name, or the first of several names that can run."""
        refusals = {name: e.supports(call) for name, e in self.evaluators.items()}
        if evaluator is None:
            rule = next(rule for rule in self.table if rule.holds(call))
            order, why = rule.order, rule.when
        else:
            order = (evaluator,) if isinstance(evaluator, str) else tuple(evaluator)
            why = "requested by name"
        for name in order:
            if name not in refusals:
                raise ValueError(unknown(f"evaluator of {self.name}", name, self.evaluators))
        for name in order:
            if refusals[name] is None:
                others = {n: r or f"can run, {name} goes first" for n, r in refusals.items()}
                del others[name]
                return Choice(name, why, others)
        reasons = "; ".join(f"{name}: {refusals[name]}" for name in order)
        raise ValueError(f"{self.name}: no evaluator can run here. {reasons}")

    def _by_platform(self, call: Call, evaluator: Any) -> dict[str, str]:
        """What is chosen on each platform; where nothing can run, what is chosen here."""
        here = self.choose(call, evaluator).evaluator
        chosen = {}
        for platform in PLATFORMS:
            try:
                there = self.choose(replace(call, platform=platform), evaluator)
                chosen[platform] = there.evaluator
            except ValueError:
                chosen[platform] = here
        return chosen

    def explain(
        self,
        steps: int,
        *,
        platform: str | None = None,
        resets: bool = False,
        masked: bool = False,
        differentiated: bool = True,
        examples: int = 1,
        evaluator: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Choice:
        """What would run for `steps` steps on `platform` (default: the present one), and why."""
        where = platform or jax.default_backend()
        call = Call(steps, where, resets, masked, options, differentiated, examples)
        return self.choose(call, evaluator)

    def __call__(
        self,
        xs: Any,
        state: Any,
        *,
        batched: bool,
        dtype: Any,
        resets: Array | None,
        start: Any,
        mask: Array | None,
        reverse: bool,
        evaluator: str | Sequence[str] | None,
        chunk_size: int | None,
        axis: Axis | None = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Run on xs [B?, T, ...] from `state`, for inputs that came as `dtype`.

        axis: of the mesh, which time is split over: xs, resets and mask are those of one device.

        Outputs and state come in at least float32, and complex if anything is: the public function
        casts its outputs last (`narrowed`).
        """
        summarised = summary_wanted() and axis is None
        place = placed(jax.tree.leaves(xs)[0]) if batched and axis is None else None
        if place is not None:
            if summarised:
                raise ValueError(f"{self.name}: summarise takes what one device has, in shard_map")
            fixed = dict(batched=batched, dtype=dtype, reverse=reverse, evaluator=evaluator)
            return self._on_devices(
                place, (xs, state, resets, start, mask), options, chunk_size=chunk_size, **fixed
            )
        over_time = 1 if batched else 0
        shape = jax.tree.leaves(xs)[0].shape[: over_time + 1]
        if axis is not None and not shape[over_time]:
            raise ValueError(f"{self.name} cannot split time over a mesh axis: there are no steps")
        if summarised:
            one = jax.eval_shape(partial(jax.tree.map, lambda x: x[0]), xs) if batched else xs
            if (why := self.unsummed(one, shape[over_time])) is not None:
                raise ValueError(f"{self.name} cannot be summarised: {why}")
        for name, flags in (("resets", resets), ("mask", mask)):
            check_flags(f"{self.name}: {name}", flags, shape)
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"{self.name}: chunk_size is {chunk_size}, expected at least 1")
        for name in ("scale", "eps"):
            if name in options:
                check_number(f"{self.name}: {name}", options[name])
        given = jax.tree.leaves((xs, state, start, options))
        complex_ones = (x.dtype for x in given if is_float(x) and jnp.iscomplexobj(x))
        compute = accumulation_dtype(dtype, *complex_ones)
        xs, state, start, options = jax.tree.map(
            lambda x: x.astype(compute) if is_float(x) else x, (xs, state, start, options)
        )
        if axis is not None:
            xs, state, start, options = varied((xs, state, start, options), axis)
        if mask is not None:  # first of all, so that nothing of a masked step is ever looked at
            xs = with_fill(lambda x, fill: jnp.where(like(mask, x), x, fill), xs, self.fill)
            resets = None if resets is None else resets & mask
        if reverse:
            xs, resets = jax.tree.map(lambda x: jnp.flip(x, over_time), (xs, resets))

        call = Call(
            shape[over_time],
            jax.default_backend(),
            resets is not None,
            mask is not None,
            options,
            examples=examples_together() * (shape[0] if batched else 1),
            shapes={n: x.shape[over_time:] for n, x in zip(xs._fields, xs) if is_array(x)},
            dtype=dtype,
        )
        if (met := _met.get()) is not None:
            met.append((self, call))
        names = [
            self._by_platform(replace(call, differentiated=d), evaluator) for d in (False, True)
        ]
        fixed = {n: o for n, o in options.items() if not any(map(is_array, jax.tree.leaves(o)))}
        arrays = {n: o for n, o in options.items() if n not in fixed}

        def form(name: str) -> Callable[..., Any]:
            chosen = self.evaluators[name]
            known = {**fixed, "chunk_size": chunk_size} if chosen.chunked else fixed

            def piece(xs: Any, state: Any, resets: Any, start: Any, arrays: Any) -> Any:
                flags = dict(resets=resets, start=start)
                run = partial(chosen.evaluate, **flags, **known, **arrays)
                if self.apart is not None:
                    run = quarantined(run, self.fill, self.readers, self.apart, **flags)
                if self.readers and self.grouped:
                    return read_in_groups(run, xs, state, self.readers)
                return run(xs, state)

            def of_pieces(xs: Any, state: Any, resets: Any, start: Any, arrays: Any) -> Any:
                def run(xs: Any, state: Any, start: Any) -> Any:
                    return piece(xs, state, resets, start, arrays)

                backwards = reverse or options.get("backward", False)
                if self.span is None or self.span.refuses(xs) is not None:
                    return relay(lambda h: run(xs, h, start), state, axis, reverse=backwards)
                if axis is None:
                    return self.span.summary(run, xs, state, resets, start)
                return self.span.over(axis, run, xs, state, resets, start, reverse=backwards)

            evaluate = of_pieces if summarised or axis is not None else piece
            evaluate = jax.vmap(evaluate, (0, 0, 0, 0, None)) if batched else evaluate

            def run(*given: Any) -> tuple[Any, Any]:
                with matmul_precision(dtype):
                    return evaluate(*given)

            return run

        forms = {name: form(name) for both in names for name in both.values()}
        value, differentiable = (
            by_platform({platform: forms[name] for platform, name in each.items()})
            for each in names
        )
        run = value if names[0] == names[1] else two_forms(value, differentiable)
        answer = run(xs, state, resets, start, arrays)
        if summarised:
            raise Summarised(replace(answer, batched=batched))
        outputs, state = answer
        if reverse:
            outputs = jax.tree.map(lambda y: jnp.flip(y, over_time), outputs)
        if mask is not None:
            outputs = jax.tree.map(lambda y: jnp.where(like(mask, y), y, 0), outputs)
        return outputs, state

    def unsummed(self, xs: Any, steps: int) -> str | None:
        """Why there is no element for what these steps of an example do to a state; None if there
        is."""
        if self.span is None:
            return "pieces of it have no small sum"
        return self.span.refuses(xs) if steps else "there are no steps"

    def _on_devices(self, place: Place, arrays: tuple, options: Mapping, **fixed: Any) -> Any:
        """The call for a batch on several devices, each of which runs its part."""
        steps = jax.tree.leaves(arrays[0])[0].shape[1]
        place = place.steps_apart(steps > 0)
        given = {n: o for n, o in options.items() if any(map(is_array, jax.tree.leaves(o)))}
        fixed |= {n: o for n, o in options.items() if n not in given}

        def part(xs: Any, state: Any, resets: Any, start: Any, mask: Any, given: Any) -> Any:
            flags = dict(resets=resets, start=start, mask=mask)
            return self(xs, state, **flags, **given, **fixed, axis=place.axis)

        steps, examples = place.steps, place.examples
        specs = (steps, examples, steps, examples, steps, PartitionSpec())
        return apart(part, place, specs, (steps, examples))(*arrays, given)


_met: ContextVar[list[tuple[Op, Call]] | None] = ContextVar("met", default=None)


@contextmanager
def calls_met() -> Iterator[list[tuple[Op, Call]]]:
    """The calls of ops that are traced inside, in order, each with what decides how it runs."""
    token = _met.set(found := [])
    try:
        yield found
    finally:
        _met.reset(token)


def matmul_precision(dtype: Any) -> Any:
    """Full float32 products for float32 inputs, on every device, unless jax's default was set.

    The default of TPUs (bfloat16) and of GPUs (TF32) loses what a float32 state is kept for;
    inputs of 16 bits have nothing to lose by it.
    """
    chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    if jnp.finfo(dtype).bits < 32 or chosen is not None:
        return nullcontext()
    return jax.default_matmul_precision("highest")
