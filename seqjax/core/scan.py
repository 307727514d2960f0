"""Evaluators: the ways to run one recurrence, each a function of (monoid, elements, state).

    sequential   h_t = act(e_t, h_{t-1}), one step after another          O(T) depth, no memory
    associative  all prefixes e_1 ... e_t as a balanced tree              O(log T) depth, T elements
    chunked      a tree inside each chunk, the state carried between them; the backward pass
                 recomputes the chunk                                     O(T/C log C) depth
    primitive    the diagonal recurrence as one JAX primitive: an in-place loop on CPU, a Pallas
                 kernel on TPU and Hopper (`seqjax.core.primitive`)

With `axis`, time is split over a mesh axis, inside `jax.shard_map`: each of them then runs one
device's piece, from the state that it begins with (`seqjax.core.axis`).

All agree with `sequential` in value and in every derivative. Nonlinear steps have no monoid; see
`seqjax.core.newton`, which evaluates them in parallel by scans over their linearisation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seqjax.core import primitive
from seqjax.core.axis import Summarised, Summary, combine, fold, summary_wanted
from seqjax.core.common import accumulation_dtype, unknown
from seqjax.core.flow import takes_flow
from seqjax.core.forms import PLATFORMS, by_platform
from seqjax.core.mesh import loop
from seqjax.core.monoid import Element, Monoid, State, check_element, keep_or_identity, resettable
from seqjax.core.types import Array, Bool


@takes_flow
def scan(
    monoid: Monoid,
    elements: Element,
    state: State,
    *,
    evaluator: str | None = None,
    reverse: bool = False,
    resets: Bool[Array, " T"] | None = None,
    start: State | None = None,
    mask: Bool[Array, " T"] | None = None,
    axis: str | None = None,
    **options,
) -> tuple[State, State]:
    """All states h_t = act(e_t, h_{t-1}) of a recurrence, and the last one.

    elements: pytree with a leading time axis [T, ...]; a single example, batch with `jax.vmap`.
    state: h before the first step processed.
    evaluator: a name of EVALUATORS; None chooses by structure and the platform that the program is
        lowered for (see `explain`).
    reverse: run from the last step to the first; states keep their places.
    resets: bool [T]; before step t the state becomes `start` (by default the `state` given).
    mask: bool [T]; a step whose mask is not set is the identity, its reset included.
    axis: of the mesh, which time is split over: elements, resets and mask are those of this device,
        the states given and the last one are the same on all. The evaluator runs each piece.
    options: of the evaluator: chunk_size=64 for "chunked".
    Returns (states [T, ...], last state); for T = 0 no states and the state given.
    Raises ValueError for unknown names, unequal lengths and evaluators that cannot run here, and
    TypeError or ValueError for elements that are none of this monoid.

    >>> elements = jnp.full(4, 0.5), jnp.ones(4)
    >>> scan(diagonal, elements, jnp.zeros(()), evaluator="associative")[0].tolist()
    [1.0, 1.5, 1.75, 1.875]
    """
    length = _length(elements)
    names = {place: evaluator or choose(monoid.structure, place) for place in PLATFORMS}
    if axis is not None and not length:
        raise ValueError(f"there are no steps to split over the mesh axis {axis!r}")
    for name in names.values():
        if name not in EVALUATORS:
            raise ValueError(unknown("evaluator", name, EVALUATORS))
        if reason := EVALUATORS[name].supports(monoid.structure):
            raise ValueError(f"evaluator {name!r} cannot run here: {reason}")
    for label, flags in (("resets", resets), ("mask", mask)):
        if flags is not None and (flags.shape != (length,) or flags.dtype != jnp.bool_):
            raise ValueError(f"{label} must be bool [{length}], got {flags.dtype} {flags.shape}")
    if length == 0:
        like = jax.tree.map(lambda s: jnp.zeros((0, *jnp.shape(s)), jnp.result_type(s)), state)
        return like, state
    check_element("elements", monoid, elements, state)
    if mask is not None:
        elements = keep_or_identity(monoid, mask, elements)
        resets = None if resets is None else resets & mask
    start = state if start is None else start
    wide = jax.tree.map(_wide, elements)  # 16-bit elements are combined in float32
    plain = monoid
    if resets is not None:
        monoid, wide = resettable(monoid, start), (resets, wide)
    end = None
    if axis is not None or summary_wanted():
        piece = fold(monoid, wide if not reverse else _flip(wide))
        cut, element = (None, piece) if resets is None else piece
        summary = Summary(element, cut, start, plain)
        if axis is None:
            raise Summarised(summary)
        state, end = combine(summary, state, axis, reverse=reverse)

    if "primitive" in names.values():
        states, last = _primitive(elements, state, resets, start, reverse, **options)
    else:
        wide = _flip(wide) if reverse else wide
        forms = {
            name: partial(EVALUATORS[name].function, monoid, **options)
            for name in set(names.values())
        }
        run = by_platform({place: forms[name] for place, name in names.items()})
        states, last = run(wide, state)
        states = _flip(states) if reverse else states
    return states, last if axis is None else end


def sequential(monoid: Monoid, elements: Element, state: State) -> tuple[State, State]:
    """One step after another: the meaning of `scan`, and the oracle of the other evaluators."""

    def step(h, element):
        h = monoid.act(element, h)
        return h, h

    last, states = loop(step, state, elements)
    return states, last


def associative(monoid: Monoid, elements: Element, state: State) -> tuple[State, State]:
    """All prefixes in a tree of depth log T, then each acts on the state. Holds T elements."""
    prefixes = lax.associative_scan(jax.vmap(monoid.combine), elements)
    states = jax.vmap(monoid.act, in_axes=(0, None))(prefixes, state)
    return states, _at(states, -1)


def chunked(
    monoid: Monoid, elements: Element, state: State, *, chunk_size: int = 64
) -> tuple[State, State]:
    """Trees of length `chunk_size`, the state carried from one to the next.

    Any T: the last chunk is filled with identities. Only the states between chunks are kept for
    the backward pass, which recomputes the inside; memory is O(T states + chunk elements).
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    length = _length(elements)
    chunk = min(chunk_size, length)
    count = -(-length // chunk)

    def fill(x, unit):
        x = jnp.concatenate([x, jnp.broadcast_to(unit, (count * chunk - length, *unit.shape))])
        return x.reshape(count, chunk, *x.shape[1:])

    elements = jax.tree.map(fill, elements, monoid.identity(_at(elements, 0)))

    @jax.checkpoint
    def body(h, block):
        states, last = associative(monoid, block, h)
        return last, states

    last, states = loop(body, state, elements)
    states = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:length], states)
    return states, last


def _primitive(elements, state, resets, start, reverse):
    a, b = elements
    if jnp.ndim(b) != 2:  # the primitive has one channel axis: fold the others into it
        shape = b.shape[1:]
        flat = (a.reshape(len(a), -1), b.reshape(len(b), -1))
        first, base = jnp.reshape(state, -1), jnp.reshape(start, -1)
        states, last = _primitive(flat, first, resets, base, reverse)
        return states.reshape(-1, *shape), last.reshape(shape)
    dtype = accumulation_dtype(a.dtype, b.dtype, state.dtype)
    if resets is not None:
        # the primitive resets to zero; a_t h_init enters with the drive
        base = start.astype(dtype)
        b = jnp.where(resets[:, None], a.astype(dtype) * base[None], 0) + b.astype(dtype)
        resets = resets[None]
    h = primitive.linear_scan(a[None], b[None], state[None], resets, reverse=reverse)[0]
    return h.astype(state.dtype), h[0 if reverse else -1].astype(state.dtype)


class Evaluator(NamedTuple):
    """A way to run; supports(structure) gives None, or the reason why it cannot run here."""

    function: Callable
    supports: Callable[[str], str | None] = lambda structure: None


def _diagonal_only(structure: str) -> str | None:
    if structure == "diagonal":
        return None
    return f"it runs the diagonal monoid only, this one is {structure or 'user-defined'!r}"


EVALUATORS: dict[str, Evaluator] = {
    "sequential": Evaluator(sequential),
    "associative": Evaluator(associative),
    "chunked": Evaluator(chunked),
    "primitive": Evaluator(_primitive, _diagonal_only),
}

# Which evaluator runs when none is named. "*" stands for every other structure. On CPU a loop beats
# every tree; on accelerators a loop of tiny steps is bound by launches, and matrix-valued elements
# must not be held for all T at once.
AUTOMATIC: dict[str, dict[str, str]] = {
    "cpu": {"diagonal": "primitive", "*": "sequential"},
    "gpu": {
        "diagonal": "primitive",
        "dense": "chunked",
        "block_diagonal": "chunked",
        "scalar_decay": "chunked",
        "key_decay": "chunked",
        "viterbi": "chunked",
        "forward": "chunked",
        "*": "associative",
    },
}
AUTOMATIC["tpu"] = AUTOMATIC["gpu"]


def choose(structure: str, platform: str | None = None) -> str:
    """The evaluator that runs for a structure when none is named."""
    table = AUTOMATIC.get(platform or jax.default_backend(), AUTOMATIC["gpu"])
    return table.get(structure, table["*"])


def explain(structure: str, platform: str | None = None) -> dict[str, str]:
    """What `scan` would run for this structure, and why it would not run each of the others.

    >>> sorted(explain("diagonal", platform="cpu"))
    ['associative', 'chunked', 'primitive', 'sequential']
    """
    platform = platform or jax.default_backend()
    chosen = choose(structure, platform)
    verdicts = {}
    for name, evaluator in EVALUATORS.items():
        reason = evaluator.supports(structure)
        if name == chosen:
            verdicts[name] = (
                f"chosen: the table's entry for {structure or 'any monoid'} on {platform}"
            )
        elif reason:
            verdicts[name] = f"cannot run: {reason}"
        else:
            verdicts[name] = f"can run; {chosen} is the table's entry on {platform}"
    return verdicts


def _wide(x: jax.Array) -> jax.Array:
    inexact = jnp.issubdtype(x.dtype, jnp.inexact)
    return x.astype(accumulation_dtype(x.dtype)) if inexact else x


def _length(elements: Element) -> int:
    lengths = {jnp.shape(x)[0] if jnp.ndim(x) else -1 for x in jax.tree.leaves(elements)}
    if len(lengths) != 1 or -1 in lengths:
        raise ValueError(
            "every leaf of the elements needs the same leading time axis, got shapes "
            f"{[jnp.shape(x) for x in jax.tree.leaves(elements)]}"
        )
    return lengths.pop()


def _at(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def _flip(tree):
    return jax.tree.map(lambda x: jnp.flip(x, 0), tree)
