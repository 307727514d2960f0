"""What travels beside a sequence, and where a reset sends a state.

    Flow     resets [T], mask [T], time steps dt [T] and random keys [T] of one example, the
             evaluator requested
    Source   another sequence, which a decoder looks at in every step
    Carry    a state `now`, and the state `start` that a reset goes to

A layer is `run(x, h, flow) -> (y, state)` with h a Carry. A Carry of a state with parts has the
Carries of its parts, `h.window`, `h[1]` or `for part in h`: a start goes wherever its state goes,
so that no layer can forget to hand on a learned one. Ops take both as they are,

    y, S = linear_attention(q, k, v, log_a, h.S, flow=flow)

New states are plain; a start never changes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.axis import Axis, Line, step_after, turned as turned_axis
from seqjax.core.common import accumulation_dtype
from seqjax.core.flags import ends

R = TypeVar("R")


class Source(NamedTuple):
    """What a decoder looks at: the outputs of an encoder, and which of its steps are there."""

    y: Array  # [S, features], of a batch [B, S, features]
    present: Array | None = None  # bool [S], or [B, S]; None: all

    @property
    def there(self) -> Array:
        """`present`, of a source that may say None."""
        return jnp.ones(self.y.shape[:-1], bool) if self.present is None else self.present


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["resets", "mask", "dt", "key", "cu_seqlens", "source"],
    meta_fields=["evaluator", "axis"],
)
@dataclass(frozen=True)
class Flow:
    """resets: bool [T]; the past is forgotten before the step. mask: bool [T]; a step where it is
    not set is left out. dt: float [T], the time that passes before each step that is not left out,
    in units of the usual step; None: 1. key: random keys [T], one per step, so that the noise of a
    layer is a part of the sequence and a stream may be cut anywhere; None: the layer as it is in
    evaluation. cu_seqlens: [N + 1], where pieces have states of their own (`seqjax.core.pieces`);
    a layer's `run` is called within one piece, and never sees it. source: what a decoder looks at;
    None: nothing. evaluator: a name; None lets each part choose. axis: of the mesh, which time is
    split over (`seqjax.core.axis`)."""

    resets: Array | None = None
    mask: Array | None = None
    dt: Array | None = field(default=None, kw_only=True)
    key: Array | None = field(default=None, kw_only=True)
    cu_seqlens: Array | None = field(default=None, kw_only=True)
    source: Source | None = field(default=None, kw_only=True)
    evaluator: str | None = field(default=None, kw_only=True)
    axis: Axis | None = field(default=None, kw_only=True)

    @property
    def begins(self) -> Array | None:
        """The resets [T] that count: those of steps that are not masked."""
        if self.resets is None or self.mask is None:
            return self.resets
        return self.resets & self.mask

    def backwards(self) -> Flow:
        """For the sequence read from its end, in which the pieces reset at their ends."""
        resets = self.resets
        if resets is not None:
            after = None
            if self.axis is not None:
                kept = jnp.ones_like(resets) if self.mask is None else self.mask
                after = step_after(resets, kept, False, self.axis)
            resets = ends(resets, self.mask, after)
        return replace(self, resets=resets).turned()

    def turned(self) -> Flow:
        """All [T] from the last step to the first, resets as they are; the time before a step
        then is that before the step that follows it in the data, and 1 where a piece begins."""
        turned = jax.tree.map(lambda v: v[::-1], replace(self, cu_seqlens=None, source=None))
        axis = None if self.axis is None else turned_axis(self.axis)
        turned = replace(turned, source=self.source, axis=axis)
        if self.dt is None:
            return turned
        T = len(self.dt)
        kept = jnp.ones(T, bool) if self.mask is None else self.mask
        place = jnp.where(kept, jnp.arange(T, dtype=jnp.int32), T)
        follows = lax.cummin(jnp.append(place[1:], jnp.int32(T)), reverse=True)
        behind = jnp.ones((), self.dt.dtype)
        if self.axis is not None:
            behind = step_after(self.dt, kept, 1, self.axis)
        dt = jnp.append(self.dt, behind)[follows]
        if self.resets is not None:
            dt = jnp.where(self.resets, jnp.ones_like(dt), dt)
        if self.cu_seqlens is not None:
            cu, step = self.cu_seqlens, jnp.arange(T, dtype=self.cu_seqlens.dtype)
            end = jnp.append(cu, T)[jnp.searchsorted(cu, step, side="right")]
            dt = jnp.where(follows < end, dt, jnp.ones_like(dt))
        return replace(turned, dt=dt[::-1])

    def joined(self, steps: int, *, causal: bool = True) -> Array:
        """bool [T, T]: the steps s that step t may look at, s <= t if causal: those that are not
        masked, with no reset between; and itself, since a softmax over nothing is NaN."""
        self.undivided("what looks at all steps at once")
        seen = jnp.tri(steps, dtype=bool) if causal else jnp.ones((steps, steps), bool)
        if self.begins is not None:
            piece = jnp.cumsum(self.begins)
            seen &= piece[:, None] == piece[None]
        if self.mask is not None:
            seen &= self.mask[None]
        return seen | jnp.eye(steps, dtype=bool)

    def undivided(self, what: str) -> None:
        """Raise ValueError if time is split over a mesh axis."""
        if self.axis is not None:
            raise ValueError(f"{what} cannot split time over a mesh axis ({self.axis!r})")

    def part(self, n: int) -> Flow:
        """For the n-th of several parts that draw noise: with keys of its own."""
        if self.key is None:
            return self
        return replace(self, key=jax.vmap(lambda key: jax.random.fold_in(key, n))(self.key))

    def first_key(self) -> Array:
        """The key of the first step of all."""
        assert self.key is not None
        if self.axis is None:
            return self.key[0]
        data = Line.on(self.axis).of(0, jax.random.key_data(self.key[0]))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(self.key))

    def drawn(self, share: Any, shape: tuple[int, ...]) -> Array | None:
        """bool [T, *shape], each True with that probability; None without a key."""
        if self.key is None:
            return None
        return jax.vmap(lambda key: jax.random.bernoulli(key, share, shape))(self.key)

    def elapsed(self, x: Array) -> Array:
        """The time [T] that passes before each step of x [T, ...]: dt, or 1, at least float32."""
        if self.dt is None:
            return jnp.ones(len(x), accumulation_dtype(x.dtype))
        return self.dt

    def of(self, evaluators: Sequence[str] = ()) -> Flow:
        """For a part with these evaluators: without the name of one that it does not know."""
        return self if self.evaluator in evaluators else replace(self, evaluator=None)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Carry:
    """A state and the state a reset goes to: the same structure, shapes and dtypes."""

    now: Any
    start: Any

    def __getattr__(self, name: str) -> Carry:
        # Parts of the state only: h.shape would silently be a pair.
        fields = () if name in ("now", "start") else getattr(type(self.now), "_fields", ())
        if name not in fields:
            raise AttributeError(f"a state has no part {name!r}, this one has {fields}")
        return Carry(getattr(self.now, name), getattr(self.start, name))

    def __getitem__(self, n: int) -> Carry:
        return tuple(self)[n]

    def __iter__(self) -> Iterator[Carry]:
        if not isinstance(self.now, tuple | list):
            raise TypeError(f"a state that is a {type(self.now).__name__} has no parts")
        return map(Carry, self.now, self.start)


def takes_flow(op: Callable[..., R]) -> Callable[..., R]:
    """An op(..., state, resets=, mask=, start=, evaluator=), with some of these at least,
    that takes `flow=` in place of them all and a Carry in place of its state."""
    parameters = inspect.signature(op).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    @wraps(op)
    def call(*arguments: Any, flow: Flow | None = None, **options: Any) -> R:
        if flow is None:
            return op(*arguments, **options)
        carries = [x for x in (*arguments, *options.values()) if isinstance(x, Carry)]
        if len(carries) != 1:
            name = getattr(op, "__name__", "the op")
            raise TypeError(f"{name} with flow= takes one Carry as its state, got {len(carries)}")
        now = [x.now if isinstance(x, Carry) else x for x in arguments]
        named = {k: x.now if isinstance(x, Carry) else x for k, x in options.items()}
        flags = {
            "resets": flow.resets,
            "mask": flow.mask,
            "start": carries[0].start,
            "evaluator": flow.evaluator,
        }
        known = {k: v for k, v in flags.items() if open_ended or k in parameters}
        if flow.axis is not None:
            if not (open_ended or "axis" in parameters):
                flow.undivided(getattr(op, "__name__", "the op"))
            known["axis"] = flow.axis
        return op(*now, **known, **named)

    return call
