"""The base classes of all layers: what a recurrence must define, and what follows from it.

    Layer         defines `run`: a whole sequence and a state in, outputs and a state out
    Recurrent     defines `step` and `readout`; any recurrence, also nonlinear ones, and
    Associative   defines `monoid`, `lift` and `readout`; every evaluator of a scan follows
                  (both in `seqjax.nn.recurrent`)
    Segmented     defines `memory` and `segment` (`seqjax.nn.segmented`)

Layers are written for one example, time first. Calling a layer adds the rest: the batch axis,
dtypes, checks, resets, masks and streaming,

    y, h = layer(x, h)        x [B, T, features], y [B, T, out_features], h the state

where the state returned is the state accepted, so a stream is a loop over this line and a single
step is a call at T = 1. No Variable is written during a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.axis import relay, varied
from seqjax.core.common import accumulation_dtype, unknown
from seqjax.core.flow import Carry, Flow, Source
from seqjax.core.forms import together
from seqjax.core.mesh import placed
from seqjax.core.monoid import select
from seqjax.core.pieces import boundaries, packed
from seqjax.core.scan import EVALUATORS
from seqjax.core.types import Array, Bool, Float, Int
from seqjax.nn.arguments import check_axis, check_call, check_source
from seqjax.nn.devices import on_devices
from seqjax.nn.states import gauged, like_state, reach_of, without_nans, zero_if_infinite
from seqjax.nn.variables import (
    Frozen,
    Group,
    Orthogonal,
    Precise,
    cast,
    cast_parameters,
    from_real,
    promotion,
    to_real,
)
from seqjax.ops import OPS
from seqjax.ops.quarantine import mark

State = Any
__all__ = [
    "Frozen",
    "Group",
    "Layer",
    "Orthogonal",
    "Precise",
    "cast_parameters",
    "option",
    "has",
]


def evaluators_of(op: str) -> tuple[str, ...]:
    """The evaluators of an op, or of the scan over a monoid of that structure."""
    if op in OPS:
        return tuple(OPS[op].evaluators)
    names = ("sequential", "associative", "chunked", "primitive")
    return tuple(name for name in names if not EVALUATORS[name].supports(op))


class Evaluators:
    """`Layer.evaluators`: those of its ops, or else of the layers it is made of, or of its loop.

    A class has none of its parts yet: what they have is known of an instance.
    """

    def __get__(self, layer: Layer | None, cls: type[Layer]) -> tuple[str, ...]:
        declares = cls if layer is None else layer
        names = [name for op in declares.ops for name in evaluators_of(op)]
        if layer is not None and not names:
            names = [name for part in _layers_of(layer) for name in part.evaluators]
        return tuple(dict.fromkeys(names)) or declares.loops


class Layer(nnx.Module):
    """A map from [B, T, features] and a state to [B, T, out_features] and a state.

    A subclass sets `features` and `out_features` and defines

        initial()                 the state before anything was seen (one example)
        run(x, h, flow) -> (y, state)
                                  x [T, features]; h a Carry: the state `now` and the `start` that a
                                  reset goes to; flow.resets, flow.mask bool [T] or None: a masked
                                  step is the identity (`seqjax.core.flow`).

    ops: what its recurrence runs: names of `seqjax.ops.OPS`, or structures of monoids.
    side_ops: what else it runs, which chooses for itself; of modules inside that declare their own,
        nothing.
    evaluators: the names `evaluator` may take; the first is the meaning, the others agree with it.
        Those of `ops`, or else of its `parts()`, of which each takes the name where it has it and
        the others choose for themselves (`Flow.of`), or else of a loop.
    structure: of the transition from state to state, in words, where no op, monoid or step that
        runs inside defines it.
    timed: whether it reads flow.dt, the time that passes before each step.
    noisy: whether it draws noise from flow.key, where there is one.
    sourced: whether it looks at flow.source, the outputs of an encoder, where there are some.
    own_loss: whether it is trained by `losses` of its own, beside those of the task.
    sequence_parallel: whether `run` takes a mesh axis that time is split over (flow.axis): all that
        looks at other steps then takes the flow. Other layers that are causal run on one device
        after the other, but `whole` ones, which need all steps.
    learned: the field of the state that `learn_initial` makes a parameter, "" for none of it: a
        cache begins empty, and slow weights are learned already. None: all of the state.
    trained: how its paper trains parameters, by the names of its attributes, where that is not as
        all others: their share of the learning rate and their decay (`optimiser.paper`).
    block: whether the layer is a step of a residual stream, x = layer(x), with norms and residuals
        of its own; otherwise it is a mixer, which a model puts into x += layer(norm(x)).
    """

    ops: tuple[str, ...] = ()
    side_ops: tuple[str, ...] = ()
    loops: tuple[str, ...] = ("sequential",)
    evaluators: Any = Evaluators()
    structure: ClassVar[str] = ""
    causal: bool = True
    timed: bool = False
    noisy: bool = False
    sourced: bool = False
    own_loss: bool = False
    sequence_parallel: bool = False
    whole: bool = False
    learned: ClassVar[str | None] = None
    trained: ClassVar[Mapping[str, Group]] = {}
    block: bool = False
    features: int
    out_features: int

    def parts(self) -> Any:
        """A layer made of layers: its modules in the shape of its state, which then is theirs; an
        array in place of a module is a part of the state that always begins with it."""
        return None

    def _of_parts(self, what: str, *given: Any) -> Any:
        if self.parts() is None:
            raise TypeError(f"{type(self).__name__} must define initial()")

        def of(part):
            return getattr(part, what)(*given) if _is_module(part) else part

        return jax.tree.map(of, self.parts(), is_leaf=_is_module)

    def initial(self) -> State:
        return self._of_parts("initial")

    def run(self, x: jax.Array, h: Carry, flow: Flow) -> tuple[jax.Array, State]:
        raise TypeError(f"{type(self).__name__} must define run(x, h, flow)")

    def losses(
        self, x: jax.Array, h: State, resets: jax.Array | None, mask: jax.Array | None
    ) -> dict[str, jax.Array]:
        """Of a layer with an `own_loss`, for what a call is given: {name: [B, T]}, zero at masked
        steps. Training adds their means over the steps to the loss of the task."""
        raise TypeError(f"{type(self).__name__} must define losses(x, h, resets, mask)")

    def opening(self, source: Source) -> State:
        """`initial()` of a decoder that begins with its source."""
        del source
        return self.initial()

    def start(self, source: Source | None = None) -> State:
        """The state a sequence and a reset start from: `initial()`, or the learned one."""
        if self.parts() is not None:
            return self._of_parts("start", source)
        first = self.initial() if source is None else self.opening(source)
        h0 = getattr(self, "h0", None)
        if h0 is None:
            return first
        if self.learned is None:
            return from_real(first, h0.get_value())
        field = from_real(getattr(first, self.learned), h0.get_value())
        return first._replace(**{self.learned: field})

    def canonical(self, h: State) -> State:
        """A batch of states in the form in which equal states are equal numbers.

        The states of its parts do it; a state with a gauge (a running maximum that may be anything
        as long as its partner is scaled by it) or with slots that are not read has a method
        `canonical`. All others are themselves.
        """
        parts = self.parts()
        if parts is None:
            return jax.tree.map(lambda s: s.canonical() if gauged(s) else s, h, is_leaf=gauged)

        def of(part, s):
            return part.canonical(s) if _is_module(part) else s

        return jax.tree.map(of, parts, h, is_leaf=_is_module)

    def learn_initial(self) -> None:
        """Make the initial state a trainable parameter `h0`, starting at `initial()`.

        What a state counts in integers is not learned, and the logarithm of nothing, -inf, starts
        at 0. A layer made of layers has none of its own: those of its parts are learned.
        """
        if self.parts() is not None:
            self._of_parts("learn_initial")
            return
        state = self.initial() if self.learned != "" else ()
        state = getattr(state, self.learned) if self.learned else state
        if jax.tree.leaves(state):
            self.h0 = Precise(jax.tree.map(zero_if_infinite, to_real(state)))

    def batch_state(
        self, batch: int | tuple[int, ...], dtype=jnp.float32, source: Source | None = None
    ) -> State:
        """The starting state of a batch B, or (B, N) with N pieces in each row, as a call accepts
        and returns it; of decoders, with their sources [B, S, features]."""
        axes = (batch,) if isinstance(batch, int) else batch
        own = 0 if source is None else 1  # axes that the states have already
        first = self.start() if source is None else jax.vmap(self.start)(source)

        def broadcast(s: jax.Array) -> jax.Array:
            ones, rest = (1,) * (len(axes) - own), s.shape[own:]
            return jnp.broadcast_to(s.reshape(s.shape[:own] + ones + rest), axes + rest)

        return jax.tree.map(broadcast, cast(first, accumulation_dtype(dtype)))

    def example(self, x: jax.Array, h: Carry, flow: Flow) -> tuple[jax.Array, State]:
        """`run` with masked steps cut off (zeros go in, zeros come out) and NaNs shut in.

        A step whose x is not finite, or a state with a NaN, makes all outputs from there on, up to
        the next reset, NaN; what lies before keeps its values and gradients. A call maps this
        over the batch; a layer made of layers calls it on its parts. Of no steps nothing comes
        out, and the state is the one given.
        """
        if not len(x):
            return jnp.zeros((0, self.out_features), x.dtype), h.now
        if flow.source is not None and not has(self, "sourced"):
            flow = replace(flow, source=None)
        mask = flow.mask
        if mask is not None:
            x = select(mask, x, jnp.zeros_like(x))
            if flow.dt is not None:
                flow = replace(flow, dt=jnp.where(mask, flow.dt, jnp.zeros_like(flow.dt)))
        if self.causal:
            x, h, lost, state_lost = without_nans(x, h)
        y, state = self._on_axis(x, h, flow)
        if y.shape != (len(x), self.out_features):
            raise ValueError(
                f"{type(self).__name__} returns outputs {list(y.shape)} for {len(x)} steps, "
                f"expected [{len(x)}, out_features={self.out_features}]"
            )
        y = y.astype(x.dtype)
        if self.causal:
            reached, at_end = reach_of(lost, state_lost, flow)
            y, state = mark(reached, y), mark(at_end, state)
        return (y if mask is None else select(mask, y, jnp.zeros_like(y))), state

    def _on_axis(self, x: jax.Array, h: Carry, flow: Flow) -> tuple[jax.Array, State]:
        """`run`, of a piece of the steps where time is split over a mesh axis."""
        if self.sequence_parallel or flow.axis is None:
            return self.run(x, h, flow)
        alone = replace(flow, axis=None)
        return relay(lambda now: self.run(x, Carry(now, h.start), alone), h.now, flow.axis)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        h: State = None,
        resets: Bool[Array, "B T"] | None = None,
        mask: Bool[Array, "B T"] | None = None,
        *,
        dt: Float[Array, "B T"] | None = None,
        source: Source | None = None,
        cu_seqlens: Int[Array, " N"] | None = None,
        every: int | None = None,
        key: jax.Array | None = None,
        evaluator: str | None = None,
        reverse: bool = False,
        axis: str | None = None,
    ) -> tuple[Float[Array, "B T O"], State]:
        """Outputs [B, T, out_features] in the dtype of x, and the state after the last step.

        h: a state returned by an earlier call; None starts afresh. Kept in at least float32.
        resets: bool [B, T]; the past is forgotten before the step.
        mask: bool [B, T]; where it is not set the step is left out: its x is not looked at, the
            state does not move, its output is zero.
        dt: float [B, T], the time that passes before each step, at least 0, in units of the usual
            step; of a masked step it is not looked at. For layers that are `timed`.
        source: y [B, S, features] and present, bool [B, S], of what is looked at in every step. For
            layers that are `sourced`; without one they look at nothing.
        cu_seqlens: integers [B, N + 1], where each row has N pieces that know nothing of each
            other. Then states have leaves [B, N, ...]: piece n begins with the n-th given, or
            afresh, and ends with the n-th returned (`seqjax.core.pieces`). Steps outside of them
            have outputs of zero. For layers that are `causal`.
        every: return, in place of the last state, those after every so many steps and the last,
            with leaves [B, ceil(T / every), ...].
        key: of the noise of layers that draw some (dropout, zoneout): one, or keys [B, T], with
            which a stream may be cut anywhere. None: the layer as it is in evaluation.
        evaluator: a name of `self.evaluators`; None lets the table choose.
        reverse: run from the last step to the first, as ops do: h enters at the end, the state
            returned is the one at the beginning, a reset forgets what lies to its right (the
            pieces of a packed sequence then reset at their ends: `seqjax.core.flags.ends`).
        axis: of a mesh, inside `jax.shard_map`: time is split over it, x [B, T, features] and what
            goes beside it are of one device, states given and returned the same on all. Of layers
            that are not causal for those that are `sequence_parallel`.
        Raises ValueError for wrong shapes, dtypes, states and names.
        """
        for size in ("features", "out_features"):
            if getattr(self, size, None) is None:
                raise TypeError(f"{type(self).__name__} must set self.{size} in its __init__")
        beside: dict[str, Any] = dict(resets=resets, mask=mask, dt=dt, cu_seqlens=cu_seqlens)
        check_call(self, x, evaluator, timed=has(self, "timed"), **beside, every=every, key=key)
        if source is not None:
            check_source(self, x, source, has(self, "sourced"))
            source = source._replace(y=source.y.astype(x.dtype))
        if axis is not None:
            check_axis(self, x, axis, divides(self), **beside, every=every, key=key)
        elif (place := placed(x)) is not None:
            known: Any = dict(key=key, source=source, every=every, evaluator=evaluator)
            return on_devices(self, place, x, h, reverse, divides(self), beside=beside, **known)
        working = cast_parameters(self, x.dtype)
        shape = x.shape[:1] if cu_seqlens is None else (len(x), cu_seqlens.shape[1] - 1)
        fresh = working.batch_state(shape, x.dtype, source)
        h = fresh if h is None else like_state(fresh, h, type(self).__name__)
        if axis is not None:
            graph, state = nnx.split(working)
            state, h, source = varied((state, h, source), axis)
            working = nnx.merge(graph, state)

        def example(x, h, flow):
            cu, source = flow.cu_seqlens, flow.source
            flow = replace(flow, cu_seqlens=None)
            start = cast(working.start(source), accumulation_dtype(x.dtype))

            def part(now, h, mask):  # of the steps: all of them look at all of the source
                x, flow = now
                mask = mask if flow.mask is None else mask & flow.mask
                return working.example(x, Carry(h, start), replace(flow, mask=mask, source=source))

            if cu is not None or every is not None:
                flow = replace(flow, source=None)
            if cu is not None:
                return packed(part, (x, flow), h, cu)
            if every is not None:
                return boundaries(part, (x, flow), h, every=every)
            return working.example(x, Carry(h, start), flow)

        def backwards(x, h, flow):
            cu, flow = flow.cu_seqlens, flow.turned()
            if cu is None:
                y, h = example(x[::-1], h, flow)
                return y[::-1], h
            # the pieces, too, come from the last to the first
            h = jax.tree.map(lambda s: s[::-1], h)
            y, h = example(x[::-1], h, replace(flow, cu_seqlens=len(x) - cu[::-1]))
            return y[::-1], jax.tree.map(lambda s: s[::-1], h)

        with promotion(x.dtype), together(len(x)):
            flow = Flow(
                resets,
                mask,
                dt=None if dt is None else dt.astype(accumulation_dtype(x.dtype)),
                source=source,
                key=key if key is None or key.ndim else jax.random.split(key, x.shape[:2]),
                cu_seqlens=None if cu_seqlens is None else cu_seqlens.astype(jnp.int32),
                evaluator=evaluator,
                axis=axis,
            )
            y, h = jax.vmap(backwards if reverse else example)(x, h, flow)
        return y, h if every is not None else like_state(fresh, h, type(self).__name__)


def divides(layer: Layer) -> bool:
    """Whether its time may be split over a mesh axis."""
    if layer.causal:
        return not has(layer, "whole")
    return layer.sequence_parallel and all(map(divides, _layers_of(layer)))


def has(layer: Layer, flag: str) -> bool:
    """Whether the flag is set of the layer, or of one that it is made of: timed, noisy, .."""
    return getattr(layer, flag) or any(has(part, flag) for part in _layers_of(layer))


def _layers_of(layer: Layer) -> list[Layer]:
    parts = jax.tree.leaves(layer.parts(), is_leaf=_is_module)
    return [part for part in parts if isinstance(part, Layer)]


def _is_module(x: Any) -> bool:
    return isinstance(x, nnx.Module)


def option(kind: str, name: str, table) -> str:
    """`name` if it is one of `table`, else one error with the nearest names."""
    if name not in table:
        raise ValueError(unknown(kind, name, table))
    return name
