"""Softmax attention over a few slots, which are written as gated linear attention writes.

    K_t = K_{t-1} Diag(f_t) + k_t s_t^T          K [K, M]
    V_t = Diag(f_t) V_{t-1} + s_t v_t^T          V [M, V]
    o_t = V_t^T softmax(scale K_t^T q_t)         both read after they are written

(Gated slot attention, 2409.07146 eq. 8-10; attention with bounded memory, 2110.02488.) Each pass is
a linear attention, which decays by value in the first, by key in the second.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.flow import takes_flow
from seqjax.core.types import Flags, Float
from seqjax.ops.arguments import batch_letter, check_real, full_state, match, state_parts
from seqjax.ops.chunks import finite_log, stepwise
from seqjax.ops.heads import share_heads
from seqjax.ops.linear_attention import LINEAR_ATTENTION, linear_attention
from seqjax.ops.op import LOOP_FORWARD_ON_CPU, Evaluator, Op, Spec
from seqjax.ops.span import elementwise


class Inputs(NamedTuple):
    q: Any  # [T, H, K]
    k: Any  # [T, H, K]
    v: Any  # [T, H, V]
    s: Any  # [T, H, M]
    log_f: Any  # [T, H, M]


class State(NamedTuple):
    K: Any  # [H, K, M]
    V: Any  # [H, M, V]


def naive(
    xs: Inputs,
    state: State,
    *,
    scale: float,
    resets: Array | None = None,
    start: State | None = None,
) -> tuple[Array, State]:
    """The equations, one step after the other."""

    def step(state: State, x: Inputs) -> tuple[State, Array]:
        f = jnp.exp(x.log_f)
        K = state.K * f[:, None, :] + x.k[:, :, None] * x.s[:, None, :]
        V = f[:, :, None] * state.V + x.s[:, :, None] * x.v[:, None, :]
        p = jax.nn.softmax(scale * jnp.einsum("hk,hkm->hm", x.q, K))
        return State(K, V), jnp.einsum("hm,hmv->hv", p, V)

    return stepwise(step, state, xs, resets, start)


def by_linear_attention(
    xs: Inputs, state: State, *, scale: float, start: State | None, **options: Any
) -> tuple[Array, State]:
    """Two linear attentions, by the evaluator of that name."""
    K, V = (None, None) if start is None else start
    scores, last = linear_attention(
        xs.q, xs.k, xs.s, None, state.K, log_b=xs.log_f, scale=scale, start=K, **options
    )
    p = jax.nn.softmax(scores, axis=-1)
    o, V = linear_attention(p, xs.s, xs.v, xs.log_f, state.V, scale=1.0, start=V, **options)
    return o, State(last, V)


@takes_flow
def slot_attention(
    q: Float[Array, "*B T J K"],
    k: Float[Array, "*B T H K"],
    v: Float[Array, "*B T H V"],
    s: Float[Array, "*B T H M"],
    log_f: Float[Array, "*B T H M"],
    state: State | None = None,
    *,
    scale: float = 1.0,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: State | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Array, State]:
    """Outputs [B, T, H, V] and the slots (K [B, H, K, M], V [B, H, M, V]); B may be absent.

    q, k [B, T, H, K], v [B, T, H, V], s and log_f <= 0 [B, T, H, M]; of q there may be a multiple
    of H heads, with as many outputs (see `seqjax.ops.heads`). `resets` [B, T] forgets the past
    before a step (the state becomes `start`, or zero), `mask` [B, T] leaves out the steps where it
    is False, `reverse` runs from the last step to the first.

    >>> x, s = jnp.ones((3, 1, 2)), jnp.ones((3, 1, 4))
    >>> y, (K, V) = slot_attention(x, x, x, s, 0 * s)
    >>> y.shape, K.shape, V.shape
    ((3, 1, 2), (1, 2, 4), (1, 4, 2))
    """
    op = SLOT_ATTENTION.name
    batch = batch_letter(op, "TQK", q=q)
    slots = f"{batch}THM"
    sizes = match(
        op,
        q=(q, f"{batch}TQK"),
        k=(k, f"{batch}THK"),
        v=(v, f"{batch}THV"),
        s=(s, slots),
        log_f=(log_f, slots),
    )
    check_real(op, q=q, k=k, v=v, s=s, log_f=log_f)

    def full(name: str, state: State | None) -> State:
        K, V = state_parts(f"{op}: {name}", state or State(None, None), State._fields)
        return State(
            full_state(f"{op}: {name}", K, f"{batch}HKM", sizes, v.dtype),
            full_state(f"{op}: {name}", V, f"{batch}HMV", sizes, v.dtype),
        )

    o, last = SLOT_ATTENTION(
        Inputs(share_heads(op, "q", q, sizes["H"], reads=True), k, v, s, finite_log(log_f)),
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
        scale=scale,
    )
    return o.astype(v.dtype), last


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `slot_attention` for a spec."""
    draw = np.random.default_rng(seed)
    B, T, H, K, V = (spec.sizes[letter] for letter in "BTHKV")
    M = spec.sizes.get("M", 5)
    log_f = -np.log1p(np.exp(-2 * draw.normal(size=(B, T, H, M))))
    return dict(
        q=draw.normal(size=(B, T, H, K)),
        k=draw.normal(size=(B, T, H, K)) / K**0.5,
        v=draw.normal(size=(B, T, H, V)),
        s=-np.expm1(log_f),
        log_f=log_f,
        state=State(draw.normal(size=(B, H, K, M)), draw.normal(size=(B, H, M, V))),
    )


SLOT_ATTENTION = Op(
    name="slot_attention",
    reference="2409.07146, 2110.02488",
    structure="diagonal on a matrix",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        **{
            name: Evaluator(partial(by_linear_attention, evaluator=name))
            for name in LINEAR_ATTENTION.evaluators
            if name != "naive"
        },
    },
    table=LOOP_FORWARD_ON_CPU,
    fill=Inputs(0.0, 0.0, 0.0, 0.0, 0.0),
    specs=(
        Spec("small", dict(B=2, T=37, H=2, K=4, V=3, M=5)),
        Spec("long", dict(B=1, T=2048, H=2, K=16, V=16, M=16)),
    ),
    example=example,
    readers=("q",),
    apart=2,
    span=elementwise("k", "v"),
)
