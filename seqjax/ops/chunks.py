"""What the matrix-state ops share: loops over time, chunks of time, and products under decay.

Inside a chunk of C steps everything is a matrix product over pairs (t, s) of its steps; between
chunks only the state travels, and the backward pass recomputes the inside from it.

Decays. A pair (t, s) is joined by exp of the sum of the log decays between them. Each of these
sums is formed from its own terms, never as a difference of two cumulative sums: nothing cancels,
so a step that forgets everything (log decay -1e4 or -inf) costs the steps after it no digit, and
with log decays <= 0 no exponential exceeds one. Nothing is ever divided by a decay.

Resets. `segment` [C] counts the resets of the chunk up to each step; a pair counts if its steps
share a segment, the state that enters a chunk is seen by segment 0 only.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.core.mesh import loop
from seqjax.ops.arguments import like, with_fill
from seqjax.ops.quarantine import finite, mark

# exp of it is 0 in every dtype, and sums of it stay finite: products with 0/1 matrices are safe
LOG_ZERO = -1e4


def finite_log(x: Array) -> Array:
    """A log factor of which -inf (complete forgetting) is a legitimate value, made finite."""
    return jnp.maximum(x, LOG_ZERO)


# ---- over time ------------------------------------------------------------------------------


def stepwise(step: Callable, state: Any, xs: Any, resets: Array | None, start: Any) -> Any:
    """The loop of step(state, x) -> (state, y), with resets; returns (ys, state)."""
    fresh = jax.tree.map(jnp.zeros_like, state) if start is None else start

    def reset_then_step(state: Any, now: Any) -> Any:
        x, reset = now
        if reset is not None:
            state = jax.tree.map(lambda new, old: jnp.where(reset, new, old), fresh, state)
        return step(state, x)

    state, ys = loop(reset_then_step, state, (xs, resets))
    return ys, state


def scan_chunks(
    body: Callable, state: Any, xs: Any, resets: Array | None, fill: Any, chunk_size: int
) -> Any:
    """Scan body(state, x [C, ...], resets [C]) -> (y [C, ...], state) over chunks of time.

    The last chunk is filled up with steps that change nothing. Only the states between chunks
    are kept for the backward pass, which runs each chunk again.
    """
    steps = jax.tree.leaves(xs)[0].shape[0]
    chunks = -(-steps // chunk_size)

    def split(x: Array, fill: Any) -> Array:
        extra = chunks * chunk_size - steps
        x = jnp.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
        return x.reshape(chunks, chunk_size, *x.shape[1:])

    def step(state: Any, now: Any) -> Any:
        y, state = body(state, *now)
        return state, y

    now = (with_fill(split, xs, fill), None if resets is None else split(resets, False))
    state, ys = loop(jax.checkpoint(step, prevent_cse=False), state, now)
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:])[:steps], ys), state


def sequential(naive: Callable, fill: Any, masked: int | None = None) -> Callable:
    """The naive loop as an evaluator that keeps one state in `chunk_size` for the backward pass.

    The chunks are made equally long, so that few steps are spent on filling up the last one.
    masked: how many axes `xs.mask` has, 1 for [T], where no other fill leaves a step out.
    """

    def evaluate(
        xs: Any,
        state: Any,
        *,
        resets: Any,
        start: Any,
        chunk_size: int | None,
        **options: Any,
    ) -> Any:
        def body(state: Any, x: Any, resets: Any) -> Any:
            return naive(x, state, resets=resets, start=start, **options)

        shape = jax.tree.leaves(xs)[0].shape
        if masked and xs.mask is None:
            xs = xs._replace(mask=jnp.ones(shape[:masked], bool))
        steps = max(shape[0], 1)
        chunks = -(-steps // (chunk_size or 64))
        return scan_chunks(body, state, xs, resets, fill, -(-steps // chunks))

    return evaluate


def scan_heads(
    body: Callable,
    state: Any,
    xs: Any,
    resets: Array | None,
    start: Any,
    fill: Any,
    chunk_size: int,
    per_head: Any = (),
) -> Any:
    """`scan_chunks` of a body for one head: body(S, x [C, ...], segment, start, *per_head).

    xs are [T, H, ...], states and `per_head` [H, ...]. The chunk is a power of two, no longer
    than T needs. The body returns (y, S, lost): where `lost` [C] is set a step has written what
    left the finite numbers, and is replaced by zeros; with it every channel of its head is lost.
    """
    steps = jax.tree.leaves(xs)[0].shape[0]
    chunk_size = min(power_of_two(chunk_size), power_of_two(max(steps, 1)))

    def all_heads(state: Any, x: Any, resets: Array | None) -> Any:
        segment = None if resets is None else jnp.cumsum(resets, dtype=jnp.int32)
        axes = (0, 1, None, 0, *(0 for _ in per_head))
        heads = jax.vmap(overflowing(body), in_axes=axes, out_axes=(1, 0))
        return heads(state, x, segment, start, *per_head)

    return scan_chunks(all_heads, state, xs, resets, fill, chunk_size)


def overflowing(body: Callable) -> Callable:
    """Keep what overflows, in a step or in the entering state, inside its own segment.

    Inputs are finite (see `seqjax.ops.quarantine`); their products need not be.
    """

    def guarded(state: Any, x: Any, segment: Any, start: Any, *per_head: Any) -> Any:
        state_lost = ~jnp.all(jnp.stack([jnp.isfinite(s).all() for s in jax.tree.leaves(state)]))
        safe = jax.tree.map(lambda s: jnp.where(state_lost, 0, s), state)
        y, new, lost = body(safe, x, segment, start, *per_head)
        reached = jnp.any(within(segment, len(lost)) & lost[None], axis=1)
        reached |= state_lost if segment is None else state_lost & (segment == 0)
        return mark(reached, y), mark(reached[-1], new)

    return guarded


def finite_rows(x: Array) -> tuple[Array, Array]:
    """x [C, ...] with zeros in the rows that are not finite, and which rows [C] these are.

    A row is a step: what it overflows by must not meet the zero weights of the steps before it.
    """
    good = finite(x, 1)
    return jnp.where(like(good, x), x, 0), ~good


def power_of_two(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << (n - 1).bit_length()


# ---- inside a chunk, one head ---------------------------------------------------------------


class Decay(NamedTuple):
    """Log decays between the steps of a chunk, each the sum of its own terms. K may be 1."""

    pairs: Array | tuple[Array, ...]  # K = 1: [C, C] from s to t; else see `to_middles`
    since_start: Array  # [C, K] of the state that enters the chunk, when the step reads
    since_reset: Any  # [C, K] of the state of the last reset, when the step reads
    until_end: Array  # [C, K] of what the step wrote, when the chunk ends
    total: tuple[Array, Any]  # [K] since the start, since the last reset, to the end
    segment: Array | None  # [C] resets so far in this chunk


def decay_of(log_a: Array, segment: Array | None, *, before: bool = False) -> Decay:
    """log_a [C, K]. With `before` a step reads before its own decay: t sums over r < t."""
    size, dtype = log_a.shape[0], log_a.dtype
    read, end = (jnp.asarray(x, dtype) for x in (np.tri(size, k=-before), np.tri(size, k=-1).T))
    if log_a.shape[1] == 1:  # [r, s]: the sum over r > s
        pairs = exactly(read, jnp.where(np.tri(size, k=-1, dtype=bool), log_a, 0))
    else:
        pairs = tuple(exactly(jnp.asarray(s, dtype), log_a) for s in to_middles(size, before))
    entering, until_end, total = exactly(read, log_a), exactly(end, log_a), log_a.sum(0)
    if segment is None:
        return Decay(pairs, entering, None, until_end, (total, None), None)
    joined = within(segment, size)
    since_reset = exactly(jnp.asarray(joined & read.astype(bool), dtype), log_a)
    total = (total, exactly(jnp.asarray(joined[-1], dtype), log_a))
    return Decay(pairs, entering, since_reset, until_end, total, segment)


def exactly(x: Array, y: Array) -> Array:
    """x @ y in full precision also on devices whose products of float32 are not, by default."""
    return jnp.matmul(x, y, precision=lax.Precision.HIGHEST)


@lru_cache
def to_middles(size: int, before: bool) -> np.ndarray:
    """[log2 C, C, C] bool: for blocks of 2, 4, ..., C steps, the steps r from t to the middle.

    Each pair s < t meets at one level, s in the left, t in the right half of one block. There
    its decay is that of t since the middle, times that of s until the middle.
    """
    t, r = np.arange(size)[:, None], np.arange(size)[None, :]
    sums = [
        (t // half == r // half) & np.where(t // half % 2 == 1, r <= t - before, r > t)
        for half in halves(size)
    ]
    return np.reshape(sums, (-1, size, size)).astype(bool)


def within(segment: Array | None, size: int) -> Array | np.ndarray:
    """[C, C] bool: s <= t, and no reset in (s, t]."""
    lower = np.tri(size, dtype=bool)
    return lower if segment is None else lower & (segment[:, None] == segment[None, :])


def halves(size: int) -> list[int]:
    """1, 2, 4, ..., size / 2."""
    return [1 << i for i in range(size.bit_length() - 1)]


@lru_cache
def meetings(size: int) -> np.ndarray:
    """[log2 C, C, C] bool: at which level the pair (t, s), s < t, meets."""
    t, s = np.arange(size)[:, None], np.arange(size)[None, :]
    meet = [(t // half == s // half + 1) & (t // half % 2 == 1) for half in halves(size)]
    return np.reshape(meet, (-1, size, size)).astype(bool)


def pair_products(x: Array, y: Array, decay: Decay) -> Array:
    """[C, C]: sum_k x[t, k] y[s, k] times the decay from s to t; zero unless s < t joined."""
    size = x.shape[0]
    joined = within(decay.segment, size) & ~np.eye(size, dtype=bool)
    if not isinstance(decay.pairs, tuple):
        products = jnp.where(joined, x @ y.T, 0)  # cut also before: 0 * inf is the gradient of exp
        return jnp.where(joined, products * jnp.exp(decay.pairs), 0)
    pairs = jnp.zeros((size, size), x.dtype)
    for to_middle, meet in zip(decay.pairs, meetings(size)):
        part = jnp.exp(to_middle)
        pairs += jnp.where(meet & joined, (x * part) @ (y * part).T, 0)
    return pairs


def decayed_sums(weights: Array, v: Array, decay: Decay) -> Array:
    """[C, V]: sum_s weights[t, s] v_s times the decay of each value from s to t, over s < t.

    For decays per value, as `pair_products` is for decays per key; `weights` are its.
    """
    if not isinstance(decay.pairs, tuple):
        return (weights * jnp.exp(decay.pairs)) @ v
    sums = jnp.zeros_like(v)
    for to_middle, meet in zip(decay.pairs, meetings(len(v))):
        part = jnp.exp(to_middle)
        read, lost = finite_rows(jnp.where(meet, weights, 0) @ (part * v))
        sums = mark(lost, sums) + part * read
    return sums


def read_entering(x: Array, state: Array, decay: Decay, start: Any) -> Array:
    """[C, V]: x_t^T S of what is left, at step t, of the state that entered its segment."""
    seen = (x * jnp.exp(decay.since_start)) @ state
    if decay.segment is None:
        return seen
    fresh = 0
    if start is not None:
        fresh = (x * jnp.exp(decay.since_reset)) @ start
    return jnp.where((decay.segment == 0)[:, None], seen, fresh)


def leave_chunk(state: Array, decay: Decay, start: Any, *writes: tuple[Array, Array]) -> Array:
    """[K, V]: the state after the chunk, in which step t wrote k_t v_t^T for each (k, v)."""
    left, kept = jnp.exp(decay.until_end), jnp.exp(decay.total[0])[:, None] * state
    if decay.segment is not None:
        fresh = 0
        if start is not None:
            fresh = jnp.exp(decay.total[1])[:, None] * start
        kept = jnp.where(decay.segment[-1] == 0, kept, fresh)
        left = jnp.where((decay.segment == decay.segment[-1])[:, None], left, 0)
    return sum(((k * left).T @ v for k, v in writes), kept)


def since_entering(decay: Decay) -> Array:
    """[C, V]: what decays per value leave, at step t, of the state that entered its segment."""
    left = jnp.exp(decay.since_start)
    if decay.segment is None:
        return left
    return jnp.where((decay.segment == 0)[:, None], left, jnp.exp(decay.since_reset))


def values_at_end(decay: Decay, state: Array, start: Any, v: Array) -> tuple[Array, Any, Array]:
    """What decays per value leave, at the end of the chunk, of the states and of the values v."""
    if start is not None and decay.segment is not None:
        start = start * jnp.exp(decay.total[1])[None]
    return state * jnp.exp(decay.total[0])[None], start, v * jnp.exp(decay.until_end)


@jax.custom_jvp
def unit_lower_inverse(a: Array) -> Array:
    """(I + a)^-1 for strictly lower triangular a [..., C, C], C a power of two.

    By blockwise doubling: the inverses of the two diagonal halves, joined by two products. No
    powers of a are formed, so it is as stable as forward substitution, and has no serial loop.
    Its derivative is that of an inverse, not of the doubling.
    """
    size = a.shape[-1]
    if size <= 2:  # a^2 = 0
        return jnp.broadcast_to(jnp.eye(size, dtype=a.dtype), a.shape) - a
    half = size // 2
    blocks = jnp.stack([a[..., :half, :half], a[..., half:, half:]])
    first, second = unit_lower_inverse(blocks)
    corner = -exactly(exactly(second, a[..., half:, :half]), first)
    return jnp.concatenate(
        [
            jnp.concatenate([first, jnp.zeros_like(corner)], -1),
            jnp.concatenate([corner, second], -1),
        ],
        -2,
    )


@unit_lower_inverse.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    inverse = unit_lower_inverse(*primals)
    return inverse, -exactly(exactly(inverse, tangents[0]), inverse)


@jax.custom_jvp
def unit_lower_solve(a: Array, b: Array) -> Array:
    """u [C, V] with (I + a) u = b, for strictly lower triangular a [C, C].

    (I + a) du = db - da u: no product of two inverses is formed, which overflows long before the
    loop does where the recurrence grows.
    """
    return unit_lower_inverse(a) @ b


@unit_lower_solve.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (a, b), (da, db) = primals, tangents
    inverse = unit_lower_inverse(a)
    u = inverse @ b
    da = jnp.where(np.tri(len(u), k=-1, dtype=bool), da, 0)  # its cotangent overflows above
    return u, inverse @ (db - da @ u)
