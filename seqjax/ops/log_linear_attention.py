"""Log-linear attention: a linear attention whose past is kept in buckets of growing size.

    y_t = sum_{j <= t} lambda_t[level(t, j)] exp(log_a_{j+1} + .. + log_a_t) (q_t . k_j) v_j

(Guo et al. 2025, arXiv:2506.04761.) level(t, j) is 0 for j = t, else the place (from 1) of
the highest binary digit in which t and j differ: the past of t in buckets of 1, 2, 4, ... steps, as
a Fenwick tree splits it. As a recurrence each bucket has its state S^l, which decays as any, and
as t grows buckets only ever merge: into level(t, j) of any step j of theirs.

    S^l_t = exp(log_a_t) sum_{l' that t merges into l} S^l'_{t-1},   + k_t v_t^T for l = 0
    y_t   = sum_l lambda_t[l] q_t^T S^l_t

`levels` states serve 2^(levels - 1) steps; beyond that the last takes all that is older. With all
lambda = 1 it is linear attention. Resets and masked steps do not count as steps of t.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.core.flow import takes_flow
from seqjax.core.types import Flags, Float
from seqjax.ops.arguments import batch_letter, check_real, full_state, match, state_parts
from seqjax.ops.chunks import (
    decay_of,
    finite_log,
    finite_rows,
    scan_chunks,
    sequential,
    stepwise,
    within,
)
from seqjax.ops.heads import share_heads
from seqjax.ops.op import STEPWISE_WHEN_SHORT, Evaluator, Op, Spec
from seqjax.ops.quarantine import mark


class Levels(NamedTuple):
    S: Any  # [levels, H, K, V]
    count: Any  # int32 [], steps seen


class Inputs(NamedTuple):
    q: Any  # [T, H, K]
    k: Any  # [T, H, K]
    v: Any  # [T, H, V]
    log_a: Any  # [T, H]
    scales: Any  # lambda [T, H, levels]
    taken: Any  # int32 [T], 0 for a step that is left out


def level_of_step(t: Array, j: Array, top: int) -> Array:
    return jnp.minimum(32 - lax.clz(t ^ j), top)


def level_of_bucket(t: Array, last: Array, top: int) -> Array:
    """[..., top + 1]: where the buckets after step `last` are at step t [...] >= last.

    A step of bucket l > 0 differs from `last` in digit l first. What was there before the first
    step (last = -1) goes to the top.
    """
    levels = jnp.arange(top + 1, dtype=jnp.int32)
    member = jnp.where(levels == 0, last, last ^ (1 << jnp.maximum(levels - 1, 0)))
    t, member = jnp.broadcast_arrays(t[..., None], member)
    found = level_of_step(t, member, top)
    return jnp.where(levels == top, top, found)


def occupied(count: Array, top: int) -> Array:
    """bool [..., top + 1]: the buckets that hold something after `count` [...] steps; before the
    first, all may. What no step can have left would merge as if it were of a step to come."""
    levels = jnp.broadcast_to(jnp.arange(top + 1, dtype=jnp.int32), (*count.shape, top + 1))
    digit = ((count - 1)[..., None] >> jnp.maximum(levels - 1, 0)) & 1
    return (levels == 0) | (levels == top) | (digit == 1)


def naive(xs: Inputs, h: Levels, *, resets=None, start=None) -> tuple[Array, Levels]:
    """The recurrence, one step after the other."""
    top = h.S.shape[0] - 1

    def step(h: Levels, x: Inputs) -> tuple[Levels, Array]:
        t = h.count - 1 + x.taken
        merges = jax.nn.one_hot(level_of_bucket(t, h.count - 1, top), top + 1, dtype=h.S.dtype)
        S = jnp.einsum("lm,lhkv->mhkv", merges, jnp.exp(x.log_a)[None, :, None, None] * h.S)
        S = S.at[0].add(x.k[:, :, None] * x.v[:, None, :])
        return Levels(S, t + 1), jnp.einsum("hl,hk,lhkv->hv", x.scales, x.q, S)

    return stepwise(step, h, xs, resets, start)


def chunked(
    xs: Inputs, h: Levels, *, resets=None, start=None, chunk_size: int | None = None
) -> tuple[Array, Levels]:
    """Attention inside the chunk, the buckets between chunks: O(T log T)."""
    top = h.S.shape[0] - 1
    fresh = jax.tree.map(jnp.zeros_like, h) if start is None else start

    def body(h: Levels, x: Inputs, resets: Array | None) -> tuple[Array, Levels]:
        C = len(x.taken)
        segment = None if resets is None else jnp.cumsum(resets, dtype=jnp.int32)
        joined = jnp.asarray(within(segment, C))
        since = joined.astype(jnp.int32) @ x.taken  # steps of its segment up to each
        count, last = jnp.broadcast_to(h.count, (C,)), h
        if segment is not None:
            count = jnp.where(segment == 0, count, fresh.count)
            last = jax.tree.map(lambda a, b: jnp.where(segment[-1] == 0, a, b), h, fresh)
        t = count - 1 + since
        levels = level_of_step(t[:, None], jnp.broadcast_to(t[None], (C, C)), top)
        old = level_of_bucket(t, h.count - 1, top)
        new = level_of_bucket(t, fresh.count - 1, top)
        merges = jax.nn.one_hot(level_of_bucket(t[-1], last.count - 1, top), top + 1)
        rises = jax.nn.one_hot(levels[-1], top + 1)

        def head(q, k, v, log_a, scales, S, S_fresh, S_last):
            decay = decay_of(log_a[:, None], segment)
            weight = jnp.exp(jnp.where(joined, jnp.asarray(decay.pairs), 0))
            weight = weight * jnp.take_along_axis(scales, levels, axis=1)
            scores, unread = finite_rows(jnp.where(joined, q @ k.T, 0) * weight)
            y = mark(unread, scores @ v)

            def entered(S, where, since):
                seen = jnp.take_along_axis(scales, where, axis=1)
                return jnp.exp(since) * jnp.einsum("ck,cl,lkv->cv", q, seen, S)

            before, total = entered(S, old, decay.since_start), decay.total[0]
            until_end = jnp.exp(decay.until_end)
            if segment is not None:
                after = entered(S_fresh, new, decay.since_reset)
                before = jnp.where((segment == 0)[:, None], before, after)
                total = jnp.where(segment[-1] == 0, total, decay.total[1])
                until_end = jnp.where(joined[-1][:, None], until_end, 0)
            kept = jnp.exp(total)[:, None, None] * S_last
            kept = jnp.einsum("lm,lkv->mkv", merges.astype(S.dtype), kept)
            wrote = jnp.einsum("cl,ck,cv->lkv", rises.astype(S.dtype), k * until_end, v)
            return y + before, kept + wrote

        heads = (x.q, x.k, x.v, x.log_a, x.scales, h.S, fresh.S, last.S)
        y, S = jax.vmap(head, in_axes=1, out_axes=1)(*heads)
        return y, Levels(S, t[-1] + 1)

    size = min(chunk_size or 64, max(len(xs.taken), 1))
    return scan_chunks(body, h, xs, resets, FILL, size)


@takes_flow
def log_linear_attention(
    q: Float[Array, "*B T J K"],
    k: Float[Array, "*B T L K"],
    v: Float[Array, "*B T H V"],
    log_a: Float[Array, "*B T H"],
    scales: Float[Array, "*B T O levels"],
    state: Levels | None = None,
    *,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Levels | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Float[Array, "*B T O V"], Levels]:
    """Outputs [B, T, H, V] and the next state (S [B, levels, H, K, V], steps seen int32 [B]); the
    batch axis may be absent.

    q, k [B, T, H, K], v [B, T, H, V], log_a <= 0 [B, T, H], scales (lambda) [B, T, H, levels]; q is
    not scaled. Of q and k there may be fewer heads, of q, and then of scales, also more, with as
    many outputs (see `seqjax.ops.heads`). `resets` [B, T] forgets the past before a step (the
    state becomes `start`, or nothing), `mask` [B, T] leaves out the steps where it is False,
    `reverse` runs from the last step to the first.

    >>> x, scales = jnp.ones((3, 1, 2)), jnp.ones((3, 1, 4))  # all levels alike: linear attention
    >>> y, (S, seen) = log_linear_attention(x, x, x, jnp.zeros((3, 1)), scales)
    >>> y[:, 0, 0].tolist(), int(seen)
    ([2.0, 4.0, 6.0], 3)
    """
    op = LOG_LINEAR_ATTENTION.name
    batch = batch_letter(op, "TQK", q=q)
    sizes = match(
        op,
        q=(q, f"{batch}TQK"),
        k=(k, f"{batch}TGK"),
        v=(v, f"{batch}THV"),
        log_a=(log_a, f"{batch}TH"),
    )
    q = share_heads(op, "q", q, sizes["H"], reads=True)
    sizes = match(op, {**sizes, "Q": q.shape[-2]}, scales=(scales, f"{batch}TQL"))
    check_real(op, q=q, k=k, v=v, log_a=log_a, scales=scales)

    def full(name: str, state: Levels | None) -> Levels:
        S, count = state_parts(f"{op}: {name}", state or Levels(None, 0), Levels._fields)
        S = full_state(f"{op}: {name}", S, f"{batch}LHKV", sizes, v.dtype)
        count = jnp.broadcast_to(jnp.asarray(count, jnp.int32), v.shape[: len(batch)])
        held = occupied(count, sizes["L"] - 1)
        return Levels(jnp.where(held[..., None, None, None], S, 0), count)

    y, end = LOG_LINEAR_ATTENTION(
        Inputs(
            q,
            share_heads(op, "k", k, sizes["H"]),
            v,
            finite_log(log_a),
            scales,
            jnp.ones(v.shape[: len(batch) + 1], jnp.int32),
        ),
        full("state", state),
        batched=bool(batch),
        dtype=v.dtype,
        resets=resets,
        mask=mask,
        reverse=reverse,
        start=None if start is None else full("start", start),
        evaluator=evaluator,
        chunk_size=chunk_size,
        axis=axis,
    )
    return y.astype(v.dtype), end


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `log_linear_attention` for a spec; the state has seen five steps."""
    draw = np.random.default_rng(seed)
    B, T, H, K, V = (spec.sizes[letter] for letter in "BTHKV")
    levels = spec.sizes.get("L", 4)
    return dict(
        q=draw.normal(size=(B, T, H, K)),
        k=draw.normal(size=(B, T, H, K)) / K**0.5,
        v=draw.normal(size=(B, T, H, V)),
        log_a=-np.abs(draw.normal(size=(B, T, H))),
        scales=np.abs(draw.normal(size=(B, T, H, levels))),
        state=Levels(draw.normal(size=(B, levels, H, K, V)), np.full(B, 5, np.int32)),
    )


FILL = Inputs(0.0, 0.0, 0.0, 0.0, 0.0, 0)
LOG_LINEAR_ATTENTION = Op(
    name="log_linear_attention",
    reference="2506.04761",
    structure="scalar on a tree of matrices",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        "sequential": Evaluator(sequential(naive, FILL)),
        "chunked": Evaluator(chunked),
    },
    table=STEPWISE_WHEN_SHORT,
    fill=FILL,
    specs=(
        Spec("short", dict(B=2, T=37, H=2, K=4, V=3, L=4)),
        Spec("long", dict(B=1, T=2048, H=2, K=16, V=16, L=12)),
    ),
    example=example,
    readers=("q", "scales"),
    apart=1,
)
