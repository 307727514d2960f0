"""Linear attention: a matrix state that sums outer products and decays.

    S_t = diag(exp log_a_t) S_{t-1} diag(exp log_b_t) + k_t v_t^T        S [K, V]
    y_t = scale q_t^T S_t                                 read after the write, or
    y_t = scale q_t^T (S_{t-1} + diag(u) k_t v_t^T)       with a bonus u for the current token

Without decay it is arXiv:2006.16236 (eq. 18-20); with one decay per head RetNet (2307.08621,
eq. 5), Lightning Attention and Mamba-2 (2405.21060); with one per key GLA (2312.06635, eq. 3)
and HGRN-2; with the bonus RWKV-5/6 (2404.05892, eq. 18-19). A decay log_b per value is the other
half of GLA's outer product of gates (section 4.1), which the slots of GSA use (2409.07146). The
chunk form is that of GLA (section 4), with decays measured pair by pair so that no strength of
decay overflows.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import takes_flow
from seqjax.core.types import Flags, Float, Inexact
from seqjax.ops.arguments import (
    batch_letter,
    check_number,
    check_real,
    full_state,
    match,
    narrowed,
    state_parts,
)
from seqjax.ops.chunks import (
    decay_of,
    decayed_sums,
    finite_log,
    finite_rows,
    leave_chunk,
    pair_products,
    read_entering,
    scan_heads,
    sequential,
    since_entering,
    stepwise,
    values_at_end,
)
from seqjax.ops.heads import share_heads
from seqjax.ops.op import LOOP_FORWARD_ON_CPU, Evaluator, Op, Spec
from seqjax.ops.quarantine import mark
from seqjax.ops.span import elementwise


class Inputs(NamedTuple):
    q: Any  # [T, H, K]
    k: Any  # [T, H, K]
    v: Any  # [T, H, V]
    log_a: Any  # [T, H, K], or [T, H, 1] if all keys share it
    log_b: Any = None  # [T, H, V], of the values


def naive(
    xs: Inputs,
    S: Array,
    *,
    resets: Array | None = None,
    start: Array | None = None,
    scale: float = 1.0,
    bonus: Array | None = None,
) -> tuple[Array, Array]:
    """The equations, one step after the other: xs [T, H, ...], S [H, K, V]."""

    def step(S: Array, x: Inputs) -> tuple[Array, Array]:
        write = x.k[:, :, None] * x.v[:, None, :]
        left = jnp.exp(x.log_a)[:, :, None] * S
        if x.log_b is not None:
            left = left * jnp.exp(x.log_b)[:, None, :]
        new = left + write
        seen = new if bonus is None else S + bonus[:, :, None] * write
        return new, scale * jnp.einsum("hk,hkv->hv", x.q, seen)

    return stepwise(step, S, xs, resets, start)


def chunked(
    xs: Inputs,
    S: Array,
    *,
    resets: Array | None,
    start: Array | None,
    chunk_size: int | None,
    scale: float,
    bonus: Array | None,
) -> tuple[Array, Array]:
    """Attention inside the chunk, the state between chunks."""
    before = bonus is not None

    def body(S: Array, x: Inputs, segment: Any, start: Any, *bonus: Array) -> Any:
        decay = decay_of(x.log_a, segment, before=before)
        now = x.k if not before else bonus[0][None] * x.k
        scores, now = pair_products(x.q, x.k, decay), (x.q * now).sum(1)
        scores, unread = finite_rows(jnp.concatenate([scores, now[:, None]], 1))
        scores, now = scores[:, :-1], scores[:, -1]
        entered = mark(unread, read_entering(x.q, S, decay, start))
        none = jnp.zeros_like(unread)
        if x.log_b is None:
            y = (scores + jnp.diag(now)) @ x.v + entered
            return scale * y, leave_chunk(S, decay, start, (x.k, x.v)), none
        decay_b = decay_of(x.log_b, segment, before=before)
        y = decayed_sums(scores, x.v, decay_b) + now[:, None] * x.v
        entered, unread = finite_rows(entered)
        y += mark(unread, since_entering(decay_b) * entered)
        S, start, v = values_at_end(decay_b, S, start, x.v)
        return scale * y, leave_chunk(S, decay, start, (x.k, v)), none

    size = chunk_size or (64 if xs.log_a.shape[-1] == 1 and xs.log_b is None else 32)
    per_head = () if bonus is None else (bonus,)
    return scan_heads(body, S, xs, resets, start, FILL, size, per_head)


@takes_flow
def linear_attention(
    q: Inexact[Array, "*B T J K"],
    k: Inexact[Array, "*B T L K"],
    v: Inexact[Array, "*B T H V"],
    log_a: Float[Array, " H"] | Float[Array, "*B T H"] | Float[Array, "*B T H K"] | None = None,
    state: Any = None,
    *,
    log_b: Float[Array, "*B T H V"] | None = None,
    bonus: Inexact[Array, "H K"] | None = None,
    normalise: bool = False,
    eps: float = 1e-6,
    scale: float = 1.0,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Any = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Inexact[Array, "*B T O V"], Any]:
    """Outputs [B, T, H, V] and the final state [B, H, K, V]; the batch axis may be absent.

    q, k [B, T, H, K] and v [B, T, H, V]; of q and k there may be fewer heads, of q also more, with
    as many outputs (see `seqjax.ops.heads`). log_a <= 0 is [H], [B, T, H], [B, T, H, K] or None
    (no decay), log_b <= 0 is [B, T, H, V] or None; -inf forgets. bonus [H, K]. With `normalise`,
    the outputs are divided by scale q_t.z_t + eps, z_t = exp(log_a_t) z_{t-1} + k_t, and states
    are pairs (S, z [B, H, K]). `resets` [B, T] forgets the past before a step (the state becomes
    `start`, or zero), `mask` [B, T] leaves out the steps where it is False, `reverse` runs
    from the last step to the first. Neither q nor k is scaled, normalised or mapped here. Any of
    q, k, v, bonus and the states may be complex, and makes what comes out so; q is not conjugated.

    >>> x = jnp.ones((3, 1, 2))
    >>> y, S = linear_attention(x, x, x)
    >>> y[:, 0, 0].tolist()
    [2.0, 4.0, 6.0]
    """
    op = LINEAR_ATTENTION.name
    batch = batch_letter(op, "TQK", q=q)
    sizes = match(
        op,
        q=(q, f"{batch}TQK"),
        k=(k, f"{batch}TGK"),
        v=(v, f"{batch}THV"),
        bonus=(bonus, "HK?"),
    )
    check_real(op, log_a=log_a, log_b=log_b)
    q = share_heads(op, "q", q, sizes["H"], reads=True)
    k = share_heads(op, "k", k, sizes["H"])
    log_a = full_decay(op, log_a, batch, sizes, v.dtype)
    if log_b is not None:
        match(op, sizes, log_b=(log_b, f"{batch}THV"))
        log_b = finite_log(log_b)
    values = v
    if normalise:
        check_number(f"{op}: eps", eps)
        values = jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)
        if log_b is not None:
            log_b = jnp.concatenate([log_b, jnp.zeros_like(log_b[..., :1])], -1)

    def matrix(name: str, state: Any) -> Array:
        S, z = state, None
        if normalise and state is not None:
            S, z = state_parts(f"{op}: {name}", state, "Sz")
        S = full_state(f"{op}: {name}", S, f"{batch}HKV", sizes, v.dtype)
        if not normalise:
            return S
        # z is one more column of S: the state of a value that is always 1
        z = full_state(f"{op}: {name}", z, f"{batch}HK", sizes, v.dtype)
        both = accumulation_dtype(S.dtype, z.dtype)
        return jnp.concatenate([S.astype(both), z[..., None].astype(both)], -1)

    y, state = LINEAR_ATTENTION(
        Inputs(q, k, values, log_a, log_b),
        matrix("state", state),
        batched=bool(batch),
        dtype=v.dtype,
        resets=resets,
        mask=mask,
        reverse=reverse,
        start=None if start is None else matrix("start", start),
        evaluator=evaluator,
        chunk_size=chunk_size,
        axis=axis,
        scale=scale,
        bonus=bonus,
    )
    if normalise:
        y = y[..., :-1] / (y[..., -1:] + eps)
        return narrowed(y, v.dtype), (state[..., :-1], state[..., -1])
    return narrowed(y, v.dtype), state


def full_decay(
    op: str,
    log_a: Array | None,
    batch: str,
    sizes: Mapping[str, int],
    dtype: Any,
    name: str = "log_a",
) -> Array:
    """log_a as [B?, T, H, K], or [B?, T, H, 1] if all keys share it; finite."""
    forms = {len(form): form for form in ("H", f"{batch}TH", f"{batch}THK")}
    if log_a is None:
        log_a = jnp.zeros((sizes["H"],), dtype)
    elif np.ndim(log_a) not in forms:
        expected = " or ".join(f"({', '.join(form)})" for form in forms.values())
        raise ValueError(f"{op}: {name} has shape {np.shape(log_a)}, expected {expected}")
    form = forms[np.ndim(log_a)]
    match(op, sizes, **{name: (log_a, form)})
    shape = tuple(sizes[letter] for letter in f"{batch}TH")
    if not form.endswith("K"):
        log_a = jnp.broadcast_to(
            log_a.reshape((1,) * (len(shape) - len(form)) + log_a.shape), shape
        )[..., None]
    return finite_log(log_a)


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `linear_attention` for a spec, with every decay from mild to strong."""
    draw = np.random.default_rng(seed)
    B, T, H, K, V = (spec.sizes[letter] for letter in "BTHKV")
    options = dict(spec.options)
    decay = options.pop("decay", None)
    args: dict[str, Any] = dict(
        q=draw.normal(size=(B, T, H, K)) / K**0.5,
        k=draw.normal(size=(B, T, H, K)) / K**0.5,
        v=draw.normal(size=(B, T, H, V)),
        state=draw.normal(size=(B, H, K, V)),
    )
    if options.get("normalise"):
        args |= dict(q=np.abs(args["q"]), k=np.abs(args["k"]))
        args["state"] = (args["state"], np.abs(draw.normal(size=(B, H, K))))
    if decay in ("head", "key", "both"):
        args["log_a"] = log_decays(draw, (B, T, H) if decay == "head" else (B, T, H, K))
    if decay in ("value", "both"):
        args["log_b"] = log_decays(draw, (B, T, H, V))
    if options.pop("bonus", False):
        options["bonus"] = draw.normal(size=(H, K))
    return args | options


def log_decays(draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Log decays of which most are mild and some forget nearly everything."""
    mild = -draw.exponential(0.2, size=shape)
    return np.where(draw.random(shape) < 0.05, -50.0, mild)


FILL = Inputs(0.0, 0.0, 0.0, 0.0, 0.0)
LINEAR_ATTENTION = Op(
    name="linear_attention",
    reference="2006.16236, 2312.06635, 2404.05892",
    structure="diagonal on a matrix",
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
        Spec("head_decay", dict(B=1, T=2048, H=4, K=64, V=64), dict(decay="head")),
        Spec("key_decay", dict(B=1, T=2048, H=4, K=64, V=64), dict(decay="key")),
        Spec("value_decay", dict(B=1, T=2048, H=4, K=64, V=64), dict(decay="value")),
    ),
    example=example,
    readers=("q",),
    apart=2,
    span=elementwise("v"),
)
