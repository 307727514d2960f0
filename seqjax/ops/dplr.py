"""A matrix state whose transition is diagonal plus low rank.

    S_t = (diag(exp log_w_t) + b_t a_t^T) S_{t-1} + k_t v_t^T                       S [K, V]
    y_t = scale q_t^T S_t                                         read after the write

a_t reads S_{t-1} before it decays. This is RWKV-7 (2503.14456 eq. 17-19: q the receptance,
a = -kappa^, b = kappa^ times the in-context learning rate); without decay it is the identity plus
low rank. `delta_rule` is the case a = exp(log_w) k, b = -beta k, with beta k for k.

Inside a chunk the reads p_t = S_{t-1}^T a_t obey (I - A) P = R, where A_ts = a_t.b_s under the
decay from s to before t, and R is what the entering state and the values alone would give; one
triangular inverse solves them (the WY form for two different vectors).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.flow import takes_flow
from seqjax.core.types import Flags, Float
from seqjax.ops.arguments import batch_letter, check_real, full_states, match, narrowed
from seqjax.ops.chunks import (
    decay_of,
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
    a: Any  # [T, H, K]
    b: Any  # [T, H, K]
    log_w: Any  # [T, H, K], or [T, H, 1] if all keys share it


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
        read = jnp.einsum("hk,hkv->hv", x.a, S)
        S = jnp.exp(x.log_w)[:, :, None] * S + x.b[:, :, None] * read[:, None, :]
        S = S + x.k[:, :, None] * x.v[:, None, :]
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
    """All reads of a chunk by one triangular inverse, the state between chunks."""

    def body(S: Array, x: Inputs, segment: Any, start: Any) -> Any:
        before, after = decay_of(x.log_w, segment, before=True), decay_of(x.log_w, segment)
        seen, unseen = finite_rows(pair_products(x.a, x.k, before))
        overlap, lost = finite_rows(-pair_products(x.a, x.b, before))
        given, missing = finite_rows(seen @ x.v + read_entering(x.a, S, before, start))
        p, unsolved = finite_rows(unit_lower_solve(overlap, given))
        y = read_entering(x.q, S, after, start)
        for left, right in ((x.k, x.v), (x.b, p)):
            scores = pair_products(x.q, left, after) + jnp.diag((x.q * left).sum(1))
            scores, unread = finite_rows(scores)
            y = mark(unread, y) + scores @ right
        new = leave_chunk(S, after, start, (x.k, x.v), (x.b, p))
        return scale * y, new, unseen | lost | missing | unsolved

    size = chunk_size or (64 if xs.log_w.shape[-1] == 1 else 32)
    return scan_heads(body, S, xs, resets, start, FILL, size)


@takes_flow
def dplr(
    q: Float[Array, "*B T J K"],
    k: Float[Array, "*B T L K"],
    v: Float[Array, "*B T H V"],
    a: Float[Array, "*B T L K"],
    b: Float[Array, "*B T L K"],
    log_w: Float[Array, " H"] | Float[Array, "*B T H"] | Float[Array, "*B T H K"] | None = None,
    state: Float[Array, "*B H K V"] | None = None,
    *,
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

    q, k, a, b [B, T, H, K] and v [B, T, H, V]; of q and of k, a and b there may be fewer heads, of
    q also more, with as many outputs (see `seqjax.ops.heads`). log_w <= 0 is [H], [B, T, H],
    [B, T, H, K] or None (no decay); -inf forgets. `resets` [B, T] forgets the past before a step
    (the state becomes `start`, or zero), `mask` [B, T] leaves out the steps where it is
    False, `reverse` runs from the last step to the first.

    >>> x, none = jnp.ones((3, 1, 2)), jnp.zeros((3, 1, 2))
    >>> dplr(x, x, x, none, none)[0][:, 0, 0].tolist()  # without a correction: linear attention
    [2.0, 4.0, 6.0]
    """
    op = DPLR.name
    batch = batch_letter(op, "TQK", q=q)
    keys, letters = f"{batch}TGK", f"{batch}HKV"
    reads, values = f"{batch}TQK", f"{batch}THV"
    sizes = match(op, q=(q, reads), k=(k, keys), v=(v, values), a=(a, keys), b=(b, keys))
    check_real(op, log_w=log_w)
    q = share_heads(op, "q", q, sizes["H"], reads=True)
    k, a, b = (share_heads(op, name, x, sizes["H"]) for name, x in zip("kab", (k, a, b)))
    first, start = full_states(op, state, start, letters, sizes, v.dtype)
    y, last = DPLR(
        Inputs(q, k, v, a, b, full_decay(op, log_w, batch, sizes, v.dtype, "log_w")),
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


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `dplr` for a spec: a = -kappa, b = kappa r with unit kappa, as in RWKV-7."""
    draw = np.random.default_rng(seed)
    B, T, H, K, V = (spec.sizes[letter] for letter in "BTHKV")
    q, k, kappa = draw.normal(size=(3, B, T, H, K)) / K**0.5
    kappa = kappa / np.linalg.norm(kappa, axis=-1, keepdims=True)
    decay = spec.options.get("decay")
    return dict(
        q=q,
        k=k,
        v=draw.normal(size=(B, T, H, V)),
        a=-kappa,
        b=kappa * draw.random((B, T, H, K)),
        log_w=decay and log_decays(draw, (B, T, H) if decay == "head" else (B, T, H, K)),
        state=draw.normal(size=(B, H, K, V)),
    )


FILL = Inputs(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
DPLR = Op(
    name="dplr",
    reference="2503.14456",
    structure="diagonal plus rank one",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        "sequential": Evaluator(sequential(naive, FILL)),
        "chunked": Evaluator(chunked),
    },
    table=LOOP_FORWARD_ON_CPU,
    fill=FILL,
    specs=(
        Spec("plain", dict(B=2, T=37, H=2, K=4, V=3)),
        Spec("key_decay", dict(B=1, T=2048, H=4, K=64, V=64), dict(decay="key")),
    ),
    example=example,
    readers=("q",),
    apart=2,
    span=matrix("v"),
)
