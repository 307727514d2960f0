"""Layers that are written one step at a time: any recurrence, and those that are a monoid."""

from __future__ import annotations

from typing import Any, ClassVar

import jax

from seqjax.core.axis import relay
from seqjax.core.flow import Carry, Flow, Source
from seqjax.core.mesh import loop
from seqjax.core.monoid import Monoid, check_element, select
from seqjax.core.newton import newton, parallel_backward
from seqjax.core.scan import scan
from seqjax.nn.base import Layer
from seqjax.nn.states import like_state

State = Any


class Recurrent(Layer):
    """Any recurrence h_t = step(h_{t-1}, z_t), y_t = readout(h_t, x_t), z = drive(x).

    A subclass defines, for one example and one time step,

        initial() -> h       step(h, z) -> h       readout(h, x) -> y

    and may define `drive(x)`: what of the inputs [T, ...] enters the step, for all steps at once
    (the input projection of a gated network, for example). By default z = x. One that is `timed`
    or `noisy` defines drive(x, flow). Where all steps need something that is dear to make of the
    parameters, an orthogonal matrix for example, `shared()` makes it once, and the step is
    step(h, z, made=None), which makes it itself where it is not given. One that is `sourced`
    defines seen(source) in its place: what all steps look at; made is None without a source.

    jacobian: structure of dh_t/dh_{t-1} for the "newton" and "parallel_backward" evaluators, one
        of `seqjax.core.newton.STRUCTURES`. A promise: under a false one their gradients are wrong,
        which nothing but `seqjax.testing.check_layer` notices.
    """

    loops = ("sequential", "newton", "elk", "parallel_backward")
    jacobian: str = "dense"
    sequence_parallel = True

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if {"run", "states"} & set(cls.__dict__):  # these may look at other steps by themselves
            cls.sequence_parallel = cls.__dict__.get("sequence_parallel", False)

    def drive(self, x: jax.Array) -> Any:
        return x

    def driven(self, x: jax.Array, flow: Flow) -> Any:
        """`drive`, with the flow if it reads it."""
        known: Any = (flow,) if self.timed or self.noisy else ()
        return self.drive(x, *known)

    def shared(self) -> Any:
        return None

    def seen(self, source: Source) -> Any:
        raise TypeError(f"{type(self).__name__} must define seen(source)")

    def step(self, h: State, z: Any) -> State:
        raise TypeError(f"{type(self).__name__} must define step()")

    def readout(self, h: State, x: jax.Array) -> jax.Array:
        del x
        return h

    def states(self, x: jax.Array, h: Carry, flow: Flow) -> tuple[State, State]:
        """The state after every step [T, ...], and the last one."""

        def step(state, now):
            z, reset, keep = now
            before = state if reset is None else select(reset, h.start, state)
            new = like_state(state, self.step(before, z, *made), type(self).__name__)
            return new if keep is None else select(keep, new, state)

        def body(state, now):
            state = step(state, now)
            return state, state

        z, shared = self.driven(x, flow), self.shared()
        if self.sourced and flow.source is not None:
            shared = self.seen(flow.source)
        made: Any = () if shared is None else (shared,)
        xs = (z, flow.resets, flow.mask)
        known: Any = dict(jacobian=self.jacobian, axis=flow.axis)
        if flow.evaluator in ("newton", "elk"):
            trust = 0.01 if flow.evaluator == "elk" else None
            return newton(step, xs, h.now, trust=trust, **known)[:2]
        if flow.evaluator == "parallel_backward":
            return parallel_backward(step, xs, h.now, **known)
        return relay(lambda now: loop(body, now, xs)[::-1], h.now, flow.axis)

    def run(self, x, h, flow):
        states, last = self.states(x, h, flow)
        return jax.vmap(self.readout)(states, x), last


class Associative(Recurrent):
    """A recurrence that is a monoid: h_t = act(lift(x_t), h_{t-1}), y_t = readout(h_t, x_t).

    A subclass defines `monoid`, `initial()`, `lift(x) -> element` and `readout(h, x) -> y`, for one
    example and one time step. One step is derived from them. That the monoid obeys its laws is a
    promise, which `seqjax.testing.check_layer` verifies.
    """

    monoid: ClassVar[Monoid]
    loops = ("sequential", "associative", "chunked")
    sequence_parallel = True

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "monoid" in cls.__dict__ and not isinstance(cls.monoid, Monoid):
            raise TypeError(f"{cls.__name__}: monoid is {cls.monoid!r:.40}, expected a Monoid")
        if "monoid" in cls.__dict__ and "ops" not in cls.__dict__:
            cls.ops = (cls.monoid.structure,)

    def lift(self, x: jax.Array) -> Any:
        raise TypeError(f"{type(self).__name__} must define lift(x) -> element of its monoid")

    def step(self, h: State, z: Any) -> State:
        return self.monoid.act(self.lift(z), h)

    def states(self, x, h, flow):
        if getattr(self, "monoid", None) is None:
            raise TypeError(f"{type(self).__name__} must define monoid, see seqjax.core.monoid")
        elements = jax.vmap(self.lift)(self.driven(x, flow))
        check_element(f"{type(self).__name__}: lift(x)", self.monoid, elements, h.now)
        return scan(self.monoid, elements, h, flow=flow)
