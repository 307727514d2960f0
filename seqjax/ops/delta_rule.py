"""The delta rule: a matrix state that corrects what it would answer to the key it is written.

    S~_t = diag(exp log_a_t) S_{t-1} diag(exp log_b_t)            first decay,
    S_t  = S~_t + beta_t k_t (v_t - S~_t^T k_t)^T                 then correct      S [K, V]
    y_t  = scale q_t^T S_t                                        read after the write

With beta = 1 and |k| = 1 the key reads exactly its value afterwards, S_t^T k_t = v_t. beta in
(0, 2) gives transition eigenvalues in (-1, 1) (2411.12537). Without decay it is DeltaNet
(2102.11174 eq. 9; chunk form 2406.06484 section 3), with one decay per head Gated DeltaNet
(2412.06464 eq. 10), with one per key Kimi Delta Attention (2510.26692 eq. 1). DeltaProduct
(2502.10297 eq. 4) makes several corrections per step: the same op on a longer axis of time. A decay
log_b or a strength beta per value makes each column of S a delta rule of its own.

Inside a chunk the corrections u_t = beta_t (v_t - S~_t^T k_t) obey (I + A) U = beta (V - K' S),
where A_ts = beta_t k_t.k_s under the decay from s to t, and K' is K under the decay since the
chunk began; one triangular inverse solves them all (the WY form). Keys are used as they are: if
beta |k|^2 > 2 the recurrence itself grows without bound.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.flow import takes_flow
from seqjax.core.types import Flags, Float
from seqjax.ops.arguments import batch_letter, check_real, full_states, match, narrowed
from seqjax.ops.chunks import (
    decay_of,
    finite_log,
    finite_rows,
    leave_chunk,
    pair_products,
    read_entering,
    scan_heads,
    sequential,
    stepwise,
    unit_lower_solve,
)
from seqjax.ops.heads import share_heads
from seqjax.ops.linear_attention import full_decay, log_decays
from seqjax.ops.op import LOOP_FORWARD_ON_CPU, Evaluator, Op, Spec
from seqjax.ops.quarantine import mark
from seqjax.ops.span import matrix


class Inputs(NamedTuple):
    q: Any  # [T, H, K]
    k: Any  # [T, H, K]
    v: Any  # [T, H, V]
    beta: Any  # [T, H], or [T, H, V] of each value
    log_a: Any  # [T, H, K], or [T, H, 1] if all keys share it
    log_b: Any = None  # [T, H, V], of the values


def naive(
    xs: Inputs,
    S: Array,
    *,
    resets: Array | None = None,
    start: Array | None = None,
    scale: float = 1.0,
) -> tuple[Array, Array]:
    """The equations, one step after the other: xs [T, H, ...], S [H, K, V]."""

    def step(S: Array, x: Inputs) -> tuple[Array, Array]:
        S = jnp.exp(x.log_a)[:, :, None] * S
        if x.log_b is not None:
            S = S * jnp.exp(x.log_b)[:, None, :]
        beta = x.beta if x.beta.ndim == 2 else x.beta[:, None]
        u = beta * (x.v - jnp.einsum("hk,hkv->hv", x.k, S))
        S = S + x.k[:, :, None] * u[:, None, :]
        return S, scale * jnp.einsum("hk,hkv->hv", x.q, S)

    return stepwise(step, S, xs, resets, start)


def chunked(
    xs: Inputs,
    S: Array,
    *,
    resets: Array | None,
    start: Array | None,
    chunk_size: int | None,
    scale: float,
) -> tuple[Array, Array]:
    """All corrections of a chunk by one triangular inverse, the state between chunks."""

    def body(S: Array, x: Inputs, segment: Any, start: Any) -> Any:
        decay, beta = decay_of(x.log_a, segment), x.beta[:, None]
        overlap, lost = finite_rows(beta * pair_products(x.k, x.k, decay))
        error, mistaken = finite_rows(beta * (x.v - read_entering(x.k, S, decay, start)))
        u, unsolved = finite_rows(unit_lower_solve(overlap, error))
        scores = pair_products(x.q, x.k, decay) + jnp.diag((x.q * x.k).sum(1))
        scores, unread = finite_rows(scores)
        y = scores @ u + mark(unread, read_entering(x.q, S, decay, start))
        new = leave_chunk(S, decay, start, (x.k, u))
        return scale * y, new, lost | mistaken | unsolved

    size = chunk_size or (64 if xs.log_a.shape[-1] == 1 else 32)
    return scan_heads(body, S, xs, resets, start, FILL, size)


def by_values(
    xs: Inputs, S: Array, *, resets: Array | None, start: Array | None, **options: Any
) -> tuple[Array, Array]:
    """`chunked`, of each column of S alone where strength or decay differ between values.

    What the columns have in common, such as the products of keys, is computed once.
    """
    if xs.beta.ndim == 2 and xs.log_b is None:
        return chunked(xs, S, resets=resets, start=start, **options)

    def column(v: Array, beta: Array, log_b: Any, S: Array, start: Any) -> Any:
        log_a = xs.log_a if log_b is None else xs.log_a + log_b[..., None]
        alone = xs._replace(v=v[..., None], beta=beta, log_a=log_a, log_b=None)
        start = None if start is None else start[..., None]
        y, S = chunked(alone, S[..., None], resets=resets, start=start, **options)
        return y[..., 0], S[..., 0]

    axes = (-1, -1 if xs.beta.ndim == 3 else None, -1, -1, -1)
    columns = jax.vmap(column, axes, out_axes=-1)
    return columns(xs.v, xs.beta, xs.log_b, S, start)


@takes_flow
def gated_delta_rule(
    q: Float[Array, "*B T J K"],
    k: Float[Array, "*B T L K"],
    v: Float[Array, "*B T H V"],
    beta: Float[Array, "*B T H"] | Float[Array, "*B T H V"],
    log_a: Float[Array, " H"] | Float[Array, "*B T H"] | Float[Array, "*B T H K"] | None,
    state: Float[Array, "*B H K V"] | None = None,
    *,
    log_b: Float[Array, "*B T H V"] | None = None,
    scale: float = 1.0,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Float[Array, "*B H K V"] | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Float[Array, "*B T O V"], Float[Array, "*B H K V"]]:
    """Outputs [B, T, H, V] and the final state [B, H, K, V]; the batch axis may be absent.

    q, k [B, T, H, K], v [B, T, H, V] and beta [B, T, H], or [B, T, H, V] of each value; of q and k
    there may be fewer heads, of q also more, with as many outputs (see `seqjax.ops.heads`).
    log_a <= 0 is [H], [B, T, H], [B, T, H, K] or None (no decay), log_b <= 0 is [B, T, H, V] or
    None; -inf forgets. `resets` [B, T] forgets the past before a step (the state
    becomes `start`, or zero), `mask` [B, T] leaves out the steps where it is False,
    `reverse` runs from the last step to the first. q and k are not scaled or normalised here.

    >>> k = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]]])  # one key, written twice
    >>> v = jnp.array([[[1.0]], [[5.0]]])
    >>> y, S = gated_delta_rule(k, k, v, jnp.ones((2, 1)), None)
    >>> y[:, 0, 0].tolist()
    [1.0, 5.0]
    """
    op = DELTA_RULE.name
    batch = batch_letter(op, "TQK", q=q)
    sizes = match(
        op,
        q=(q, f"{batch}TQK"),
        k=(k, f"{batch}TGK"),
        v=(v, f"{batch}THV"),
        beta=(
            beta,
            f"{batch}THV" if getattr(beta, "ndim", 0) == getattr(v, "ndim", 0) else f"{batch}TH",
        ),
        log_b=(log_b, f"{batch}THV?"),
    )
    check_real(op, log_a=log_a, log_b=log_b)
    q = share_heads(op, "q", q, sizes["H"], reads=True)
    k = share_heads(op, "k", k, sizes["H"])
    log_a = full_decay(op, log_a, batch, sizes, v.dtype)
    letters = f"{batch}HKV"
    first, start = full_states(op, state, start, letters, sizes, v.dtype)
    y, last = DELTA_RULE(
        Inputs(q, k, v, beta, log_a, None if log_b is None else finite_log(log_b)),
        first,
        batched=bool(batch),
        dtype=v.dtype,
        resets=resets,
        mask=mask,
        reverse=reverse,
        start=start,
        evaluator=evaluator,
        chunk_size=chunk_size,
        axis=axis,
        scale=scale,
    )
    return narrowed(y, v.dtype), last


@takes_flow
def delta_rule(
    q: Float[Array, "*B T J K"],
    k: Float[Array, "*B T L K"],
    v: Float[Array, "*B T H V"],
    beta: Float[Array, "*B T H"] | Float[Array, "*B T H V"],
    state: Float[Array, "*B H K V"] | None = None,
    **options: Any,
) -> tuple[Float[Array, "*B T O V"], Float[Array, "*B H K V"]]:
    """`gated_delta_rule` without decay; the same options.

    >>> k, v = jnp.ones((2, 1, 1)), jnp.array([[[1.0]], [[5.0]]])
    >>> delta_rule(k, k, v, jnp.ones((2, 1)))[0][:, 0, 0].tolist()
    [1.0, 5.0]
    """
    return gated_delta_rule(q, k, v, beta, None, state, **options)


@takes_flow
def gated_delta_product(
    q: Float[Array, "*B T J K"],
    k: Float[Array, "*B S L K"],
    v: Float[Array, "*B S H V"],
    beta: Float[Array, "*B S H"] | Float[Array, "*B S H V"],
    log_a: Float[Array, " H"] | Float[Array, "*B T H"] | Float[Array, "*B T H K"] | None = None,
    state: Float[Array, "*B H K V"] | None = None,
    *,
    log_b: Float[Array, "*B T H V"] | None = None,
    resets: Flags | None = None,
    mask: Flags | None = None,
    reverse: bool = False,
    **options: Any,
) -> tuple[Float[Array, "*B T O V"], Float[Array, "*B H K V"]]:
    """Per step one decay, then n corrections, then one read; options as `gated_delta_rule`.

    q [B, T, H, K], log_a [B, T, H] or [B, T, H, K], log_b [B, T, H, V], and k, v, beta
    [B, T n, H, ...] with the n corrections of step t at t n .. t n + n - 1. With `reverse` the
    steps run backwards, the corrections inside a step keep their order.

    >>> k = jnp.eye(2)[jnp.arange(6) % 2][:, None]  # two keys, written at every one of three steps
    >>> q, v, beta = jnp.ones((3, 1, 2)), jnp.ones((6, 1, 1)), jnp.ones((6, 1))
    >>> gated_delta_product(q, k, v, beta, None)[0][:, 0, 0].tolist()
    [2.0, 2.0, 2.0]
    """
    op = "gated_delta_product"
    axis = len(batch_letter(op, "THK", q=q))
    for name, x, letters in (("k", k, "THK"), ("v", v, "THV"), ("beta", beta, "TH")):
        batch_letter(op, letters, **{name: x})
    steps, micro = q.shape[axis], k.shape[axis]
    n = micro // steps if steps else 1
    if n < 1 or micro != n * steps:
        raise ValueError(
            f"gated_delta_product: {micro} corrections do not divide into {steps} "
            "steps; k, v and beta are [B, T n, ...] for q [B, T, ...]"
        )

    def steps_of(x: Array) -> Array:  # [.., T n, ..] -> [.., T, n, ..]
        return x.reshape(*x.shape[:axis], steps, n, *x.shape[axis + 1 :])

    def micro_steps(x: Array) -> Array:
        return x.reshape(*x.shape[:axis], micro, *x.shape[axis + 2 :])

    def at(x: Array, place: int) -> Array:  # in one of the n places, zero in the others
        pad = [(0, 0)] * (x.ndim + 1)
        pad[axis + 1] = (place, n - 1 - place)
        return micro_steps(jnp.pad(jnp.expand_dims(x, axis + 1), pad))

    if reverse:
        q = jnp.flip(q, axis)
        log_a, log_b, resets, mask = jax.tree.map(
            lambda x: jnp.flip(x, axis), (log_a, log_b, resets, mask)
        )
        k, v, beta = (micro_steps(jnp.flip(steps_of(x), axis)) for x in (k, v, beta))
    y, state = gated_delta_rule(
        at(q, n - 1),
        k,
        v,
        beta,
        None if log_a is None else at(log_a, 0),
        state,
        log_b=None if log_b is None else at(log_b, 0),
        resets=None if resets is None else at(resets, 0),
        mask=None if mask is None else jnp.repeat(mask, n, axis),
        **options,
    )
    y = jnp.take(steps_of(y), n - 1, axis=axis + 1)
    return (jnp.flip(y, axis) if reverse else y), state


def shares_transition(xs: Inputs) -> str | None:
    """Why the columns of S do not have one transition, if they do not."""
    if xs.log_b is not None or xs.beta.ndim == 3:
        return "each value has a decay or a beta of its own"
    return None


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `gated_delta_rule` for a spec: unit keys, beta in (0, 2)."""
    draw = np.random.default_rng(seed)
    B, T, H, K, V = (spec.sizes[letter] for letter in "BTHKV")
    q, k = draw.normal(size=(2, B, T, H, K))
    decay, each = spec.options.get("decay"), spec.options.get("values", False)
    more = dict(log_b=log_decays(draw, (B, T, H, V))) if each else {}
    return more | dict(
        q=q / np.linalg.norm(q, axis=-1, keepdims=True),
        k=k / np.linalg.norm(k, axis=-1, keepdims=True),
        v=draw.normal(size=(B, T, H, V)),
        beta=2 * draw.random((B, T, H, V) if each else (B, T, H)),
        log_a=decay and log_decays(draw, (B, T, H) if decay == "head" else (B, T, H, K)),
        state=draw.normal(size=(B, H, K, V)),
    )


FILL = Inputs(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
DELTA_RULE = Op(
    name="gated_delta_rule",
    reference="2102.11174, 2406.06484, 2412.06464, 2510.26692",
    structure="diagonal minus rank one",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        "sequential": Evaluator(sequential(naive, FILL)),
        "chunked": Evaluator(by_values),
    },
    table=LOOP_FORWARD_ON_CPU,
    fill=FILL,
    specs=(
        Spec("plain", dict(B=2, T=37, H=2, K=4, V=3)),
        Spec("head_decay", dict(B=1, T=2048, H=4, K=64, V=64), dict(decay="head")),
        Spec("key_decay", dict(B=1, T=2048, H=4, K=64, V=64), dict(decay="key")),
    ),
    example=example,
    readers=("q",),
    apart=2,
    span=matrix("v", shared=shares_transition),
)
