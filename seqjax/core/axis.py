"""Time split over an axis of a mesh: each device has a piece of the steps, in their order.

Inside `jax.shard_map` the steps of device p follow those of device p - 1. However many steps a
piece has, what it does to the state that enters it is one element of a monoid, so that

    e_p = summarise(piece p)                                  on each device by itself
    h_p = act(e_0 e_1 ... e_{p-1}, h)                         combine: a scan over the devices
    y_p = replay(piece p, h_p)                                on each device by itself

is the whole (a scan of blocks: Blelloch, CMU-CS-90-190, sec. 1.4), and all that is exchanged are
elements, of which the number of steps is no part. This is how `axis=` of ops and of `seqjax.scan`
runs; the three are public for pieces that lie elsewhere, on hosts, on a disk, or in time.

What has no small element, any step h -> f(h, x), is run by `relay`, one device after the other.
States given are the same on all devices, and so are the last ones returned.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.forms import examples_together
from seqjax.core.mesh import cond, loop, vary, varying
from seqjax.core.monoid import Monoid, keep_or_identity, resettable, select

GATHERED = 1 << 16  # bytes of elements that are one message


@dataclass(frozen=True)
class Turned:
    """A mesh axis whose last device has the first steps."""

    name: str


Axis = str | Turned


def turned(axis: Axis) -> Axis:
    """The axis for the same steps read from their end."""
    return axis.name if isinstance(axis, Turned) else Turned(axis)


class Line(NamedTuple):
    """The devices of an axis, by the steps that they have."""

    name: str
    size: int
    place: Array  # of this device, 0 for that with the first steps
    turned: bool

    @classmethod
    def on(cls, axis: Axis) -> Line:
        name = axis.name if isinstance(axis, Turned) else axis
        size, place = lax.axis_size(name), lax.axis_index(name)
        back = isinstance(axis, Turned)
        return cls(name, size, size - 1 - place if back else place, back)

    def moved(self, tree: Any, by: int, first: Any) -> Any:
        """What the device `by` places before has, and `first` where there is none."""
        # leaf by leaf: in one vector a multiplier would be of what a derivative is linear in
        step = -by if self.turned else by
        pairs = [(n, (n + step) % self.size) for n in range(self.size)]
        got = jax.tree.map(lambda x: lax.ppermute(x, self.name, pairs), tree)
        return select(self.place >= by, got, first)

    def of(self, place: int, tree: Any) -> Any:
        """What the device at this place has, on all."""

        def one(x: Array) -> Array:
            number = x.astype(jnp.int32) if x.dtype == jnp.bool_ else x
            own = jnp.where(self.place == place, number, jnp.zeros_like(number))
            return lax.psum(own, self.name).astype(x.dtype)

        return jax.tree.map(one, tree)

    def last(self, tree: Any) -> Any:
        """What the device with the last steps has, on all."""
        return self.of(self.size - 1, tree)

    def largest(self, x: Array) -> Array:
        """Of all devices; x has no NaN."""
        return lax.pmax(x, self.name)


# ---- summarise, combine, replay ----------------------------------------------------------------


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["element", "cut", "start"],
    meta_fields=["monoid", "batched", "reach"],
)
@dataclass(frozen=True)
class Summary:
    """What a piece of the steps does to the state h that enters it.

        act(h) = monoid.act(element, h)          or, where `cut` is set, of `start` in place of h

    element: of the steps from the last reset on. cut: whether there is one; None: never. batched:
    whether all leaves have a batch axis [B, ...]. reach: how many such pieces a state may know of;
    None: all.

    >>> x = jnp.arange(1.0, 7.0)[:, None]
    >>> pieces = [summarise(seqjax.linear_scan, jnp.full_like(z, 0.5), z) for z in (x[:4], x[4:])]
    >>> both = pieces[0].then(pieces[1])
    >>> both.act(jnp.zeros(1)).tolist(), seqjax.linear_scan(jnp.full_like(x, 0.5), x)[1].tolist()
    ([10.03125], [10.03125])
    """

    element: Any
    cut: Any
    start: Any
    monoid: Monoid
    batched: bool = False
    reach: int | None = None

    def act(self, state: Any) -> Any:
        """The state after the piece."""
        if self.batched:
            return jax.vmap(lambda s, h: s.alone.act(h))(self, state)
        if self.start is not None:  # a plain tuple will do, as it does for an op
            state = jax.tree.unflatten(jax.tree.structure(self.start), jax.tree.leaves(state))
        after = self._monoid.act(self._parts, state)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)

    def then(self, later: Summary) -> Summary:
        """Of this piece and the one that follows it."""
        if self.batched:
            both = jax.vmap(lambda p, q: p.alone.then(q.alone))(self, later)
            return replace(both, batched=True)
        return self._with(self._monoid.combine(self._parts, later._parts))

    def nothing(self) -> Summary:
        """Of no steps."""
        return self._with(self._monoid.identity(self._parts))

    @property
    def alone(self) -> Summary:
        """For one example, in `jax.vmap`."""
        return replace(self, batched=False)

    @property
    def _monoid(self) -> Monoid:
        return self.monoid if self.cut is None else resettable(self.monoid, self.start)

    @property
    def _parts(self) -> Any:
        return self.element if self.cut is None else (self.cut, self.element)

    def _with(self, parts: Any) -> Summary:
        cut, element = (None, parts) if self.cut is None else parts
        return replace(self, cut=cut, element=element)


def summarise(call: Callable[..., Any], *arguments: Any, **options: Any) -> Summary:
    """What these steps do to the state that enters them, of the call call(*arguments, **options).

    call: an op (`seqjax.gated_delta_rule`), or `seqjax.scan` with a monoid, also one of your own.
        The state among its arguments is not looked at, its shape is.
    Raises ValueError for ops whose pieces have no small sum, and for what is no such call.

    >>> summarise(seqjax.scan, diagonal, (jnp.full(3, 0.5), jnp.ones(3)), jnp.zeros(())).element
    (Array(0.125, dtype=float32), Array(1.75, dtype=float32))
    """
    token = _wanted.set(True)
    try:
        call(*arguments, **options)
    except Summarised as found:
        return found.summary
    finally:
        _wanted.reset(token)
    name = getattr(call, "__name__", type(call).__name__)
    raise ValueError(f"summarise takes an op or seqjax.scan and its arguments, got {name!r}")


def combine(summary: Summary, state: Any, axis: Axis, *, reverse: bool = False) -> tuple[Any, Any]:
    """The state that enters this device's piece, and the one after all pieces.

    summary: of this device. state: before the first piece, the same on all devices. reverse: the
        last piece is the first to act.

    Elements are scanned: after a shift by one place, in ceil(log2(n - 1)) rounds, each device
    combines its own with that of the one 1, 2, 4, ... places before (Hillis and Steele 1986).
    Where that brings no fewer bytes, as of up to 4 devices, or all n elements are 64 KiB or less,
    all are gathered in one message. Of a window that r pieces fill r stands for n - 1, and its
    items come from those alone. The state after all is one sum over the devices.

    >>> mesh, P = jax.sharding.Mesh(jax.devices()[:1], "time"), jax.P
    >>> def piece(a, b):
    ...     return combine(seqjax.summarise(seqjax.linear_scan, a, b), jnp.ones(1), "time")
    >>> run = jax.shard_map(piece, mesh=mesh, in_specs=P("time"), out_specs=(P("time"), P()))
    >>> jax.jit(run)(jnp.full((3, 1), 0.5), jnp.ones((3, 1)))
    (Array([1.], dtype=float32), Array([1.875], dtype=float32))
    """
    if summary.batched:
        each = partial(combine, axis=axis, reverse=reverse)
        return jax.vmap(lambda s, h: each(s.alone, h))(summary, state)
    line = Line.on(turned(axis) if reverse else axis)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(summary._parts))
    rounds = rounds_of(line.size, summary.reach)
    if gathers(line.size, size * examples_together(), rounds):
        before = _gathered(summary, state, line)
    else:
        before = _scanned(summary, line, rounds).act(state)
    return before, line.last(summary.act(before))


def rounds_of(devices: int, reach: int | None = None) -> int:
    """How often each device combines its element with one from elsewhere."""
    past = devices - 1 if reach is None else min(devices - 1, reach)
    return (past - 1).bit_length() if past else 0


def gathers(devices: int, size: int, rounds: int) -> bool:
    """Whether elements of so many bytes are gathered, and not scanned in so many rounds."""
    return rounds + 2 >= devices or (rounds > 0 and devices * size <= GATHERED)


def replay(call: Callable[..., Any], before: Any, *arguments: Any, **options: Any) -> Any:
    """call(*arguments, **options) from the state that enters the piece: its outputs, and the state
    after it. `combine` or `Summary.act` has this state.

    >>> a, b = jnp.full((4, 1), 0.5), jnp.ones((4, 1))
    >>> before = seqjax.summarise(seqjax.linear_scan, a[:2], b[:2]).act(jnp.zeros(1))
    >>> replay(seqjax.linear_scan, before, a[2:], b[2:])[0][:, 0].tolist()
    [1.75, 1.875]
    """
    bound = inspect.signature(call).bind_partial(*arguments, **options)
    given = bound.arguments
    if isinstance(given.get("monoid"), Monoid):  # the start of a scan is by default its first state
        given.setdefault("start", given.get("state"))
    given["state"] = before
    return call(*bound.args, **bound.kwargs)


class Summarised(Exception):  # noqa: N818  it is what was wanted, no error
    """Where an op is summarised its call ends with this."""

    def __init__(self, summary: Summary):
        super().__init__("a summary is wanted of this call")
        self.summary = summary


_wanted: ContextVar[bool] = ContextVar("wanted", default=False)


def summary_wanted() -> bool:
    """Whether the call is one of `summarise`; what it calls itself then is none."""
    wanted = _wanted.get()
    _wanted.set(False)
    return wanted


def _gathered(summary: Summary, state: Any, line: Line) -> Any:
    def step(h: Any, parts: Any) -> tuple[Any, Any]:
        return summary._with(parts).act(h), h

    parts = lax.all_gather(summary._parts, line.name)
    before = loop(step, state, parts, reverse=line.turned)[1]
    return jax.tree.map(lambda h: h[lax.axis_index(line.name)], before)


def _scanned(summary: Summary, line: Line, rounds: int) -> Summary:
    nothing = summary.nothing()._parts

    def before(e: Summary, by: int) -> Summary:
        return summary._with(line.moved(e._parts, by, nothing))

    past = before(summary, 1)
    for n in range(rounds):
        past = before(past, 1 << n).then(past)
    return past


def varied(tree: Any, axis: Axis) -> Any:
    """The same numbers, of types that vary over the axis, where `jax.shard_map` looks at types.

    What all devices share has a gradient that is summed over them. It is summed here, then, and not
    where a number is met: perhaps in a branch that one device takes at a time.
    """
    name = axis.name if isinstance(axis, Turned) else axis
    axes = varying(lax.axis_index(name))
    return jax.tree.map(lambda x: vary(x, axes) if isinstance(x, Array) else x, tree)


# ---- what else is exchanged --------------------------------------------------------------------


def relay(
    run: Callable[[Any], tuple[Any, Any]], state: Any, axis: Axis | None, *, reverse: bool = False
) -> tuple[Any, Any]:
    """run(h) -> (y, h) of this device's piece, for anything that streams: each device waits for the
    state of the one before. One state is exchanged n times; time is that of all steps.

    The outputs of this piece, and the state after all pieces. The backward pass keeps a state for
    each device and runs the piece again. axis: None, where there is one piece.
    """
    if axis is None:
        return run(state)
    line = Line.on(turned(axis) if reverse else axis)

    def after(h: Any) -> Any:
        return jax.tree.map(lambda new, old: new.astype(old.dtype), run(h)[1], h)

    def turn(before: Any, n: Array) -> tuple[Any, None]:
        sent = cond(line.place == n, after, lambda h: h, before)
        return select(line.place == n + 1, line.moved(sent, 1, before), before), None

    turns = jnp.arange(line.size - 1, dtype=jnp.int32)
    before, _ = loop(jax.checkpoint(turn, prevent_cse=False), state, turns)
    y, last = run(before)
    return y, line.last(last)


def step_before(x: Array, first: Array, axis: Axis) -> Array:
    """The last x [T, ...] of the device before, and `first` on the first one."""
    return Line.on(axis).moved(x[-1], 1, first.astype(x.dtype))


latest = Monoid(
    lambda p, q: (p[0] | q[0], select(q[0], q[1], p[1])),
    lambda e: (jnp.zeros_like(e[0]), e[1]),
    lambda e, h: select(e[0], e[1], h),
)
"""Elements (there, x), states x: the newest one that is there."""


def step_after(x: Array, kept: Array, fill: Any, axis: Axis) -> Array:
    """Of x [T, ...] the one of the first step that is kept [T], of the devices behind this one;
    `fill` where there is none."""
    piece = jnp.any(kept), x[jnp.argmax(kept)]
    none = jnp.asarray(fill, x.dtype)
    return combine(Summary(piece, None, None, latest), none, axis, reverse=True)[0]


def fold(monoid: Monoid, elements: Any) -> Any:
    """e_1 ... e_T as one element, T >= 1: a tree of depth log T that keeps no prefixes."""
    combine = jax.vmap(monoid.combine)
    while (steps := len(jax.tree.leaves(elements)[0])) > 1:
        if steps % 2:  # one that does nothing
            last = jax.tree.map(lambda e: e[-1], elements)
            unit = keep_or_identity(monoid, jnp.zeros((), bool), last)
            elements = jax.tree.map(lambda e, u: jnp.append(e, u[None], 0), elements, unit)
        elements = combine(*(jax.tree.map(lambda e, n=n: e[n::2], elements) for n in (0, 1)))
    return jax.tree.map(lambda e: e[0], elements)
