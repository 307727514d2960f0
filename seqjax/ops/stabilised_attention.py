"""Linear attention with exponential input gates, kept in range by a running maximum (mLSTM).

    m_t = max(log_f_t + m_{t-1}, log_i_t)
    C_t = exp(log_f_t + m_{t-1} - m_t) C_{t-1} + exp(log_i_t - m_t) k_t v_t^T      C [K, V]
    n_t = exp(log_f_t + m_{t-1} - m_t) n_{t-1} + exp(log_i_t - m_t) k_t            n [K]
    h_t = scale q_t^T C_t / (max(|scale q_t.n_t|, exp(-m_t)) + eps)

(xLSTM, 2405.04517 eq. 19-27 with the stabiliser of eq. 15; the chunk form is that of 2503.14376.)
log_f is the logarithm of the forget gate, for the paper the log-sigmoid of its pre-activation. In
exact arithmetic h does not depend on m, but for eps: what the state stands for is C exp(m) and
n exp(m), and m is chosen so that C and n stay in range. All evaluators choose the same m.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.flow import takes_flow
from seqjax.core.monoid import Monoid, stabilised
from seqjax.core.types import Flags, Float
from seqjax.ops.arguments import batch_letter, check_real, full_state, match, state_parts
from seqjax.ops.chunks import (
    LOG_ZERO,
    decay_of,
    finite_log,
    finite_rows,
    scan_heads,
    sequential,
    stepwise,
    within,
)
from seqjax.ops.heads import share_heads
from seqjax.ops.op import LOOP_FORWARD_ON_CPU, Evaluator, Op, Spec
from seqjax.ops.quarantine import mark
from seqjax.ops.span import Run, Span, since_reset


class Inputs(NamedTuple):
    q: Any  # [T, H, K]
    k: Any  # [T, H, K]
    v: Any  # [T, H, V]
    log_i: Any  # [T, H]
    log_f: Any  # [T, H]


class State(NamedTuple):
    C: Any  # [H, K, V]
    n: Any  # [H, K]
    m: Any  # [H]


def naive(
    xs: Inputs,
    state: State,
    *,
    resets: Array | None = None,
    start: State | None = None,
    scale: float = 1.0,
    eps: float = 1e-6,
) -> tuple[Array, State]:
    """The equations, one step after the other: xs [T, H, ...], state [H, ...]."""

    def step(state: State, x: Inputs) -> tuple[State, Array]:
        m = jnp.maximum(x.log_f + state.m, x.log_i)
        forget, write = jnp.exp(x.log_f + state.m - m), jnp.exp(x.log_i - m)
        C = forget[:, None, None] * state.C + (
            write[:, None, None] * x.k[:, :, None] * x.v[:, None, :]
        )
        n = forget[:, None] * state.n + write[:, None] * x.k
        weight = scale * jnp.einsum("hk,hk->h", x.q, n)
        h = scale * jnp.einsum("hk,hkv->hv", x.q, C) / denominator(weight, m, eps)[:, None]
        return State(C, n, m), h

    return stepwise(step, state, xs, resets, start)


def denominator(weight: Array, m: Array, eps: float) -> Array:
    """max(|weight|, exp(-m)) + eps; exp(-m) stops where 1 / its square would overflow."""
    limit = math.log(float(jnp.finfo(m.dtype).max)) / 2
    return jnp.maximum(jnp.abs(weight), jnp.exp(jnp.minimum(-m, limit))) + eps


def chunked(
    xs: Inputs,
    state: State,
    *,
    resets: Array | None,
    start: State | None,
    chunk_size: int | None,
    scale: float,
    eps: float,
) -> tuple[Array, State]:
    """Attention inside the chunk, (C, n, m) between chunks."""

    def body(state: State, x: Inputs, segment: Any, start: Any) -> Any:
        joined = within(segment, x.q.shape[0])
        decay = decay_of(x.log_f[:, None], segment)
        entered, old = decay.since_start[:, 0] + state.m, x.q @ columns(state)
        last = columns(state)
        if segment is not None:
            first, fresh = segment == 0, columns(start)
            entered = jnp.where(first, entered, decay.since_reset[:, 0] + start.m)
            old = jnp.where(first[:, None], old, x.q @ fresh)
            last = jnp.where(first[-1], last, fresh)
        weight = decay.pairs + x.log_i[None]  # of the write at s, at step t
        m = jnp.maximum(entered, jnp.where(joined, weight, -jnp.inf).max(1))
        weight = jnp.exp(jnp.where(joined, weight - m[:, None], LOG_ZERO))
        entered = jnp.exp(entered - m)

        v = jnp.concatenate([x.v, jnp.ones_like(x.v[:, :1])], 1)
        scores, unread = finite_rows(jnp.where(joined, x.q @ x.k.T, 0) * weight)
        seen = scale * (scores @ v + entered[:, None] * old)
        h = mark(unread, seen[:, :-1] / denominator(seen[:, -1], m, eps)[:, None])
        last = entered[-1] * last + (x.k * weight[-1][:, None]).T @ v
        return h, State(last[:, :-1], last[:, -1], m[-1]), jnp.zeros_like(unread)

    return scan_heads(body, state, xs, resets, start, FILL, chunk_size or 64)


@takes_flow
def stabilised_attention(
    q: Float[Array, "*B T J K"],
    k: Float[Array, "*B T L K"],
    v: Float[Array, "*B T H V"],
    log_i: Float[Array, "*B T H"],
    log_f: Float[Array, "*B T H"],
    state: Any = None,
    *,
    scale: float = 1.0,
    eps: float = 1e-6,
    initial_m: float = 0.0,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Any = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Float[Array, "*B T O V"], State]:
    """Outputs h [B, T, H, V] and the final state (C, n, m); the batch axis may be absent.

    q, k [B, T, H, K], v [B, T, H, V], log_i and log_f <= 0 [B, T, H]; -inf is allowed in both. Of q
    and k there may be fewer heads, of q also more, with as many outputs (see `seqjax.ops.heads`).
    States are (C [B, H, K, V], n [B, H, K], m [B, H]). Absent ones are zero with m = `initial_m`:
    0 is the recurrent form of the paper's code, -inf its parallel form; only eps tells them
    apart. `resets` [B, T] forgets the past before a step (the state becomes `start`),
    `mask` [B, T] leaves out the steps where it is False, `reverse` runs from the last step to
    the first.

    >>> x, none = jnp.ones((3, 1, 2)), jnp.zeros((3, 1))
    >>> y, (C, n, m) = stabilised_attention(x, x, x, none, none)
    >>> y.shape, C.shape, n.shape, m.shape
    ((3, 1, 2), (1, 2, 2), (1, 2), (1,))
    """
    op = STABILISED_ATTENTION.name
    batch = batch_letter(op, "TQK", q=q)
    gates = f"{batch}TH"
    sizes = match(
        op,
        q=(q, f"{batch}TQK"),
        k=(k, f"{batch}TGK"),
        v=(v, f"{batch}THV"),
        log_i=(log_i, gates),
        log_f=(log_f, gates),
    )
    check_real(op, q=q, k=k, v=v, log_i=log_i, log_f=log_f)
    q = share_heads(op, "q", q, sizes["H"], reads=True)
    k = share_heads(op, "k", k, sizes["H"])

    def full(name: str, state: Any) -> State:
        if state is None:
            state = None, None, jnp.full((sizes["H"],), initial_m)
        C, n, m = state_parts(f"{op}: {name}", state, "Cnm")
        C, n, m = (
            full_state(f"{op}: {name}", part, batch + letters, sizes, v.dtype)
            for part, letters in ((C, "HKV"), (n, "HK"), (m, "H"))
        )
        return State(C, n, finite_log(m))

    h, state = STABILISED_ATTENTION(
        Inputs(q, k, v, finite_log(log_i), finite_log(log_f)),
        full("state", state),
        batched=bool(batch),
        dtype=v.dtype,
        resets=resets,
        mask=mask,
        reverse=reverse,
        start=None if resets is None else full("start", start),
        evaluator=evaluator,
        chunk_size=chunk_size,
        axis=axis,
        scale=scale,
        eps=eps,
    )
    return h.astype(v.dtype), state


def piece(run: Run, xs: Inputs, state: State, resets: Array | None) -> Any:
    """The element of `seqjax.core.monoid.stabilised` that a piece of the steps is."""
    kept = since_reset(resets, len(xs.log_f))
    log_f = jnp.sum(jnp.where(kept[:, None], xs.log_f, 0), axis=0)
    empty = State(
        jnp.zeros_like(state.C), jnp.zeros_like(state.n), jnp.full_like(state.m, LOG_ZERO)
    )
    last = run(xs, empty, empty)[1]
    return log_f, last.m, columns(last)


def act(piece: Any, state: State) -> State:
    m, x = stabilised.act(piece, (state.m, columns(state)))
    return State(x[..., :-1], x[..., -1], m)


def columns(state: State) -> Array:
    """[H, K, V + 1]: n is one more column of C, what a value of 1 would leave."""
    return jnp.concatenate([state.C, state.n[..., None]], -1)


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `stabilised_attention` for a spec, with input gates over many magnitudes."""
    draw = np.random.default_rng(seed)
    B, T, H, K, V = (spec.sizes[letter] for letter in "BTHKV")
    return dict(
        q=draw.normal(size=(B, T, H, K)),
        k=draw.normal(size=(B, T, H, K)) / K**0.5,
        v=draw.normal(size=(B, T, H, V)),
        log_i=3 * draw.normal(size=(B, T, H)),
        log_f=-np.log1p(np.exp(-3 * draw.normal(size=(B, T, H)) - 2)),
        state=(
            draw.normal(size=(B, H, K, V)),
            draw.normal(size=(B, H, K)),
            draw.normal(size=(B, H)),
        ),
    )


FILL = Inputs(0.0, 0.0, 0.0, LOG_ZERO, 0.0)
STABILISED_ATTENTION = Op(
    name="stabilised_attention",
    reference="2405.04517, 2503.14376",
    structure="scalar on a matrix",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        "sequential": Evaluator(sequential(naive, FILL)),
        "chunked": Evaluator(chunked),
    },
    table=LOOP_FORWARD_ON_CPU,
    fill=FILL,
    specs=(
        Spec("mlstm", dict(B=2, T=37, H=2, K=4, V=3)),
        Spec("mlstm_long", dict(B=1, T=2048, H=4, K=64, V=64)),
    ),
    example=example,
    readers=("q",),
    apart=2,
    span=Span(piece, Monoid(stabilised.combine, stabilised.identity, act)),
)
