"""Softmax attention over the last `window` steps, as a recurrence whose state is a cache.

    y_t^h = sum_s exp(A_ts^h) v_s^g / (sum_s exp(A_ts^h) + exp(z_t^h))      s in (t - window, t]
    A_ts^h = c(scale q_t^h . k_s^g) + scale p_t^h . r_{t-s}^h + bias^h_{t-s}
             + sum_{u=s+1..t} log f_u^h

(1706.03762 eq. 1, a sliding window as in 2004.05150.) H / G heads h of queries in a row share the
keys and values g (2305.13245); c(a) = softcap tanh(a / softcap), or a. Positions enter as

    rotary      q_t and k_s turned by their positions                              2104.09864 eq. 15
    `alibi`     bias^h_n = -m_h n, m_h = 2^(-8 h / H), h = 1 .. H                     2108.12409
    `hard_alibi`  bias^h_n = -inf for n >= m_h: head h sees its last m_h steps        2402.01032
    log f       a forget gate per head                                             2503.02130 eq. 4
    relative    p_t = q_t + v, keys r of distances, and q_t + u in place of q_t     1901.02860

A `sink` z is the score of a value of zero, which a query may look at instead (2309.17453 sec. 3.3,
where z = 0); without one exp(z) is zero, and the weights are a softmax.

The cache holds the last window - 1 keys, not yet turned, values and log f: a stream, split
anywhere, is the whole. A reset empties it; a masked step leaves nothing and does not move the
window. `attend` is the same where the caller knows which keys a query sees.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import takes_flow
from seqjax.core.monoid import Monoid
from seqjax.core.types import Flags, Float
from seqjax.ops.arguments import batch_letter, check_number, check_real, match, state_parts
from seqjax.ops.chunks import finite_log, sequential, stepwise
from seqjax.ops.dense_attention import attend, by_key, forgotten, relative_scores
from seqjax.ops.look_back import Cache, look_back
from seqjax.ops.op import Evaluator, Op, Rule, Spec
from seqjax.ops.positions import rotary
from seqjax.ops.span import Run, Span, filled_by, push


class Inputs(NamedTuple):
    q: Any  # [T, H, K]
    k: Any  # [T, G, K], or what `expand` makes it of
    v: Any  # [T, G, V], or what `expand` makes it of
    log_f: Any  # [T, H], or None
    mask: Any  # bool [T], or None
    p: Any = None  # [T, H, R], or None: queries of distances
    sink: Any = None  # [T, H], or None


# ---- over time ------------------------------------------------------------------------------


def naive(
    xs: Inputs,
    cache: Cache,
    *,
    scale: float,
    softcap: float | None = None,
    bias: Array | None = None,
    r: Array | None = None,
    rotary_fraction: float = 0.0,
    base: float = 10_000.0,
    rates: Sequence[float] | None = None,
    gain: float = 1.0,
    expand: Callable[..., tuple[Array, Array]] | None = None,
    resets: Array | None = None,
    start: Cache | None = None,
) -> tuple[Array, Cache]:
    """The equation, one step after the other: the step and its cache, oldest first."""
    size = len(cache.items[0])
    distance = jnp.arange(size, -1, -1, dtype=jnp.int32)

    def step(cache: Cache, x: Inputs) -> tuple[Cache, Array]:
        new = (x.k, x.v) if x.log_f is None else (x.k, x.v, x.log_f)
        items = jax.tree.map(lambda old, z: jnp.concatenate([old, z[None]]), cache.items, new)
        k, v = items[:2] if expand is None else expand(*items[:2])
        q, (k, v) = x.q[None], (jnp.repeat(z, len(x.q) // z.shape[1], axis=1) for z in (k, v))
        if rotary_fraction or rates:
            turn = partial(rotary, fraction=rotary_fraction, base=base, rates=rates, gain=gain)
            q, k = turn(q, jnp.zeros(1, jnp.int32)), turn(k, -distance)
        A = scale * jnp.einsum("hk,shk->hs", q[0], k)
        A = A if softcap is None else softcap * jnp.tanh(A / softcap)
        A = A if bias is None else A + bias[:, ::-1]
        A = A if r is None else A + scale * jnp.einsum("hk,shk->hs", x.p, r[::-1])
        if x.log_f is not None:
            later = lax.cumsum(items[2], axis=0, reverse=True)[1:]
            A = A + jnp.concatenate([later, jnp.zeros_like(items[2][:1])]).T
        A = jnp.where((distance <= cache.filled)[None], A, -jnp.inf)
        if x.sink is not None:
            A = jnp.concatenate([A, x.sink[:, None]], axis=1)
        p = jax.nn.softmax(A)[:, : size + 1]
        moved = Cache(
            jax.tree.map(lambda z: z[1:], items), jnp.minimum(cache.filled + 1, jnp.int32(size))
        )
        if x.mask is not None:
            moved = jax.tree.map(lambda new, old: jnp.where(x.mask, new, old), moved, cache)
        return moved, jnp.einsum("hs,shv->hv", p, v)

    return stepwise(step, cache, xs, resets, start)


def blocks(
    xs: Inputs,
    cache: Cache,
    *,
    scale: float,
    softcap: float | None,
    bias: Array | None,
    r: Array | None,
    rotary_fraction: float,
    base: float,
    rates: Sequence[float] | None,
    gain: float,
    expand: Callable[..., tuple[Array, Array]] | None,
    resets: Array | None,
    start: None,
) -> tuple[Array, Cache]:
    """Blocks of `window` queries over the keys of two windows: scores of one block at a time."""
    del start

    def one(queries: Any, items: Any, i: Array, j: Array, seen: Array) -> Array:
        q, p, sink = queries
        k, v = items[:2] if expand is None else expand(*items[:2])
        if rotary_fraction or rates:
            turn = partial(rotary, fraction=rotary_fraction, base=base, rates=rates, gain=gain)
            q, k = turn(q, i), turn(k, j)
        added = []
        if bias is not None:
            table = jnp.broadcast_to(bias[:, None, ::-1], (len(bias), len(q), bias.shape[1]))
            added.append(by_key(table))
        if r is not None:
            added.append(scale * relative_scores(p, r[::-1]))
        if len(items) == 3:
            added.append(forgotten(items[2], len(q)))
        total = sum(added[1:], added[0]) if added else None
        return attend(q, k, v, seen, scale=scale, bias=total, softcap=softcap, sink=sink)

    items = (xs.k, xs.v) if xs.log_f is None else (xs.k, xs.v, xs.log_f)
    return look_back(one, (xs.q, xs.p, xs.sink), items, cache, resets=resets, mask=xs.mask)


@takes_flow
def softmax_attention(
    q: Float[Array, "*B T H K"],
    k: Float[Array, "*B T G K"],
    v: Float[Array, "*B T G V"],
    state: Cache | None = None,
    *,
    window: int | None = None,
    log_f: Float[Array, "*B T H"] | None = None,
    bias: Float[Array, "H W"] | None = None,
    p: Float[Array, "*B T H R"] | None = None,
    r: Float[Array, "W H R"] | None = None,
    sink: Float[Array, "*B T H"] | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    rotary_fraction: float = 0.0,
    base: float = 10_000.0,
    rates: Sequence[float] | None = None,
    gain: float = 1.0,
    expand: Callable[..., tuple[Array, Array]] | None = None,
    resets: Flags | None = None,
    mask: Flags | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Float[Array, "*B T H V"], Cache]:
    """Outputs [B, T, H, V] and the cache of the last window - 1 steps; B may be absent.

    q [B, T, H, K], k [B, T, G, K], v [B, T, G, V], log_f <= 0 [B, T, H]; bias [H, window] by
    distance; p [B, T, H, R] and r [window, H, R] by distance, or neither; sink [B, T, H]. scale:
    K^-1/2 by default.
    rotary_fraction: the share of the K channels that is turned; rates, gain: angles of a step of
    the pairs turned instead, and a factor (`seqjax.ops.rope`).
    state: a `Cache` of (k, v) or (k, v, log_f), each [B, window - 1, ...], and how many steps of it
    are there, int32 [B]; None: an empty one of `window`, by default T. What it holds need not be
    keys and values: expand(k, v) makes k [m, G, K] and v [m, G, V] of what m steps left.
    `resets` [B, T] empties the cache before a step, `mask` [B, T] leaves out the steps where it is
    False, `reverse` runs from the last step to the first. Raises ValueError for shapes that do not
    fit, heads that do not divide and a window below 1, TypeError for what is no array.

    >>> q = k = jnp.zeros((3, 1, 2))  # all are alike: the mean of the past
    >>> v = jnp.arange(3.0)[:, None, None]
    >>> softmax_attention(q, k, v)[0][:, 0, 0].round(4).tolist()
    [0.0, 0.5, 1.0]
    """
    op = SOFTMAX_ATTENTION.name
    batch = batch_letter(op, "THK", q=q)
    sizes = match(op, q=(q, f"{batch}THK"), log_f=(log_f, f"{batch}TH?"))
    if expand is None:
        sizes = match(op, sizes, k=(k, f"{batch}TGK"), v=(v, f"{batch}TGV"))
        if not sizes["G"] or sizes["H"] % sizes["G"]:
            raise ValueError(
                f"{op}: q has {sizes['H']} heads and k {sizes['G']}; expected a multiple of k's"
            )
    if (p is None) != (r is None):
        raise TypeError(f"{op}: p and r come together, {'p' if p is None else 'r'} is missing")
    check_real(op, q=q, k=k, v=v, log_f=log_f, bias=bias, p=p, r=r, sink=sink)
    if softcap is not None:
        check_number(f"{op}: softcap", softcap)
    items = (k, v) if log_f is None else (k, v, log_f)
    cache = cache_of(f"{op}: state", state, items, window, len(batch))
    sizes = {**sizes, "W": cache.items[0].shape[len(batch)] + 1}
    sizes = match(op, sizes, bias=(bias, "HW?"), sink=(sink, f"{batch}TH?"), p=(p, f"{batch}THR?"))
    match(op, sizes, r=(r, "WHR?"))
    y, cache = SOFTMAX_ATTENTION(
        Inputs(q, k, v, None if log_f is None else finite_log(log_f), mask, p, sink),
        cache,
        batched=bool(batch),
        dtype=q.dtype,
        resets=resets,
        mask=mask,
        reverse=reverse,
        start=None,
        evaluator=evaluator,
        chunk_size=chunk_size,
        axis=axis,
        scale=sizes["K"] ** -0.5 if scale is None else scale,
        softcap=softcap,
        bias=bias,
        r=r,
        rotary_fraction=rotary_fraction,
        base=base,
        rates=None if rates is None else tuple(rates),
        gain=gain,
        expand=expand,
    )
    return y.astype(q.dtype), cache


def cache_of(what: str, state: Any, items: tuple[Array, ...], window: Any, axis: int) -> Cache:
    """The cache given, or an empty one, of `items` whose time is at `axis`; or one error."""

    def shape(z: Array, size: int) -> tuple[int, ...]:
        return (*z.shape[:axis], size, *z.shape[axis + 1 :])

    if state is None:
        size = (max(1, items[0].shape[axis]) if window is None else window) - 1
        if size < 0:
            raise ValueError(f"{what} has a window of {window}, expected at least 1")
        dtype = accumulation_dtype(items[0].dtype)
        held = tuple(jnp.zeros(shape(z, size), dtype) for z in items)
        return Cache(held, jnp.zeros(items[0].shape[:axis], jnp.int32))
    held, filled = state_parts(what, state, Cache._fields)
    held = state_parts(f"{what}.items", held, ("k", "v", "log_f")[: len(items)])
    size = held[0].shape[-items[0].ndim + axis]
    if window not in (None, size + 1):
        raise ValueError(f"{what} has a window of {size + 1}, expected window = {window}")
    for name, old, new in zip(("k", "v", "log_f"), held, items):
        if old.shape not in (shape(new, size), shape(new, size)[axis:]):
            raise ValueError(f"{what}.{name} has shape {old.shape}, expected {shape(new, size)}")
    held = tuple(jnp.broadcast_to(old, shape(new, size)) for old, new in zip(held, items))
    return Cache(held, jnp.broadcast_to(filled, items[0].shape[:axis]))


def piece(run: Run, xs: Inputs, cache: Cache, resets: Any) -> Cache:
    """What a piece of the steps leaves in an empty cache."""
    del resets
    empty = jax.tree.map(jnp.zeros_like, cache)
    return run(xs, empty, empty)[1]


def act(new: Cache, cache: Cache) -> Cache:
    """The cache after such a piece: of the old items those that there is still room for."""
    items = jax.tree.map(partial(push, new.filled), cache.items, new.items)
    size = len(cache.items[0])
    return Cache(items, jnp.minimum(cache.filled + new.filled, jnp.int32(size)))


caches = Monoid(lambda p, q: act(q, p), partial(jax.tree.map, jnp.zeros_like), act)


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `softmax_attention` for a spec; options "gates", "bias", "relative", "sinks" and
    its own. The cache holds one step less than it can."""
    draw = np.random.default_rng(seed)
    B, T, H, K, V = (spec.sizes[letter] for letter in "BTHKV")
    G, W = spec.sizes.get("G", H), spec.sizes.get("W", 6)
    options = dict(spec.options)
    R = spec.sizes.get("R", K)
    gates, biased, relative, sinks = (
        options.pop(n, False) for n in ("gates", "bias", "relative", "sinks")
    )
    held = [(G, K), (G, V)] + [(H,)] * gates
    there = np.arange(W - 1) > 0  # all places of the cache but the oldest
    items = [
        np.where(there.reshape(-1, *(1,) * len(one)), draw.normal(size=(B, W - 1, *one)), 0)
        for one in held
    ]
    if gates:
        items[2] = -np.abs(items[2])
    return dict(
        q=draw.normal(size=(B, T, H, K)),
        k=draw.normal(size=(B, T, G, K)),
        v=draw.normal(size=(B, T, G, V)),
        log_f=-np.abs(draw.normal(size=(B, T, H))) if gates else None,
        bias=draw.normal(size=(H, W)) if biased else None,
        p=draw.normal(size=(B, T, H, R)) if relative else None,
        r=draw.normal(size=(W, H, R)) if relative else None,
        sink=draw.normal(size=(B, T, H)) if sinks else None,
        state=Cache(tuple(items), np.full(B, max(0, W - 2), np.int32)),
        **options,
    )


FILL = Inputs(0.0, 0.0, 0.0, 0.0, False, 0.0, 0.0)
SOFTMAX_ATTENTION = Op(
    name="softmax_attention",
    reference="1706.03762, 2004.05150, 2305.13245, 2108.12409, 2503.02130, 2309.17453",
    structure="window of the past",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        "sequential": Evaluator(sequential(naive, FILL, masked=1)),
        "blocks": Evaluator(blocks, chunked=False),
    },
    table=(Rule("always", lambda call: True, ("blocks",)),),
    fill=FILL,
    specs=(
        Spec("grouped", dict(B=2, T=37, H=4, G=2, K=4, V=3, W=6), dict(rotary_fraction=0.5)),
        Spec(
            "forgetting",
            dict(B=2, T=37, H=2, K=4, V=3, W=6, R=3),
            dict(gates=True, relative=True, sinks=True, rates=(1.0, 0.3), gain=1.2),
        ),
        Spec("long", dict(B=1, T=2048, H=2, K=16, V=16, W=64)),
    ),  # fmt: skip
    example=example,
    readers=("q", "p", "sink"),
    grouped=False,
    apart=1,
    span=Span(piece, caches, reach=lambda xs, cache: filled_by(xs, cache.items)),
)
