"""The recurrences of Mamba and Mamba-2: state spaces whose step size, input and output vary.

`selective_scan` (Mamba, 2312.00752 eq. 2-4 and algorithm 2), one state [N] for each channel d:

    h_t[d] = exp(dt_t[d] A[d]) h_{t-1}[d] + dt_t[d] u_t[d] B_t          h [D, N]
    y_t[d] = h_t[d].C_t + D[d] u_t[d],   then y_t silu(z_t)

`ssd` (Mamba-2, 2405.21060 section 6), one A for each head, which makes it linear attention with
a decay per head: S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T and y_t = S_t C_t, S [P, N].

dt = softplus(delta + bias) in both papers. B is discretised by Euler's rule, A exactly, as in
their code.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import takes_flow
from seqjax.core.types import Flags, Float, Inexact
from seqjax.ops.arguments import batch_letter, check_real, full_states, like, match, narrowed
from seqjax.ops.chunks import sequential as in_chunks, stepwise
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.linear_scan import linear_scan
from seqjax.ops.op import Evaluator, Op, Rule, Spec
from seqjax.ops.quarantine import mark
from seqjax.ops.span import elementwise


class Inputs(NamedTuple):
    u: Any  # [T, D]
    dt: Any  # [T, D]
    B: Any  # [T, G, N], or None: then [D, N] in the option `constant_B`
    C: Any  # [T, G, N], or None: then [D, N] in the option `constant_C`


def naive(
    xs: Inputs,
    h: Array,
    *,
    A: Array,
    constant_B: Array | None = None,
    constant_C: Array | None = None,
    resets: Array | None = None,
    start: Array | None = None,
) -> tuple[Array, Array]:
    """The equations, one step after the other: u, dt [T, D], h and A [D, N]."""

    def step(h: Array, x: Inputs) -> tuple[Array, Array]:
        B, C = of_channels(x.B, constant_B, A), of_channels(x.C, constant_C, A)
        h = jnp.exp(x.dt[:, None] * A) * h + (x.dt * x.u)[:, None] * B
        return h, (h * C).sum(1)

    return stepwise(step, h, xs, resets, start)


def of_channels(varying: Array | None, constant: Array | None, A: Array) -> Array:
    """[D, N] from the groups [G, N] of a step: channel d belongs to group d // (D / G)."""
    if varying is None:
        assert constant is not None
        return constant
    return jnp.repeat(varying, A.shape[0] // varying.shape[0], axis=0)


def by_linear_scan(
    xs: Inputs,
    h: Array,
    *,
    A: Array,
    constant_B: Array | None,
    constant_C: Array | None,
    resets: Array | None,
    start: Array | None,
) -> tuple[Array, Array]:
    """One linear scan over D N channels; holds all states [T, D, N]."""

    def over_time(varying: Array | None, constant: Array | None) -> Array:
        if varying is None:
            return jnp.broadcast_to(of_channels(None, constant, A)[None], (steps, *A.shape))
        return jax.vmap(of_channels, in_axes=(0, None, None))(varying, None, A)

    steps = xs.u.shape[0]
    B, C = over_time(xs.B, constant_B), over_time(xs.C, constant_C)
    a = jnp.exp(xs.dt[:, :, None] * A[None]).reshape(steps, A.size)
    b = ((xs.dt * xs.u)[:, :, None] * B).reshape(steps, A.size)
    states, last = linear_scan(
        a,
        b,
        h.reshape(-1),
        resets=resets,
        start=None if start is None else start.reshape(-1),
    )
    return (states.reshape(steps, *A.shape) * C).sum(2), last.reshape(A.shape)


@takes_flow
def selective_scan(
    u: Float[Array, "*B T D"],
    delta: Float[Array, "*B T D"],
    A: Inexact[Array, "D N"],
    B: Inexact[Array, "*B T N"] | Inexact[Array, "*B T G N"] | Inexact[Array, "D N"],
    C: Inexact[Array, "*B T N"] | Inexact[Array, "*B T G N"] | Inexact[Array, "D N"],
    D: Float[Array, " D"] | None = None,
    z: Float[Array, "*B T D"] | None = None,
    delta_bias: Float[Array, " D"] | None = None,
    state: Inexact[Array, "*B D N"] | None = None,
    *,
    delta_softplus: bool = False,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Inexact[Array, "*B D N"] | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Float[Array, "*B T D"], Inexact[Array, "*B D N"]]:
    """Outputs [B, T, D] and the final state [B, D, N]; the batch axis may be absent.

    u, delta, z [B, T, D]; A [D, N] (negative: it decays); B, C [B, T, N], [B, T, G, N] with G
    groups of adjacent channels, or, where there is a batch axis, [D, N] if they do not vary; D
    and delta_bias [D]. With a complex A, which B, C and the state may then be too, y is twice the
    real part, as in the release: each pair of conjugate states is represented by one of them.
    `resets` [B, T] forgets the past before a step (the state becomes `start`, or zero),
    `mask` [B, T] leaves out the steps where it is False, `reverse` runs from the last step to the
    first.

    >>> u = delta = B = C = jnp.ones((4, 1))
    >>> y, h = selective_scan(u, delta, jnp.log(jnp.full((1, 1), 0.5)), B, C)
    >>> y[:, 0].round(4).tolist()
    [1.0, 1.5, 1.75, 1.875]
    """
    op = SELECTIVE_SCAN.name
    batch = batch_letter(op, "TD", u=u)
    steps, letters = f"{batch}TD", f"{batch}DN"
    sizes = match(
        op,
        u=(u, steps),
        delta=(delta, steps),
        A=(A, "DN"),
        z=(z, f"{steps}?"),
        D=(D, "D?"),
        delta_bias=(delta_bias, "D?"),
    )
    check_real(op, delta=delta, delta_bias=delta_bias, z=z)
    (B, constant_B), (C, constant_C) = (
        in_groups(op, name, x, batch, sizes) for name, x in (("B", B), ("C", C))
    )
    u, delta, z = leave_out(mask, u, delta, z)
    dt = step_size(delta, delta_bias, delta_softplus)
    first, start = full_states(op, state, start, letters, sizes, u.dtype)
    y, last = SELECTIVE_SCAN(
        Inputs(u, dt, B, C),
        first,
        batched=bool(batch),
        dtype=u.dtype,
        resets=resets,
        mask=mask,
        reverse=reverse,
        start=start,
        evaluator=evaluator,
        chunk_size=chunk_size,
        axis=axis,
        A=A,
        constant_B=constant_B,
        constant_C=constant_C,
    )
    if jnp.iscomplexobj(A):
        y = 2 * y.real
    return narrowed(skip_and_gate(y, u, D, z), u.dtype), last


@takes_flow
def ssd(
    x: Float[Array, "*B T H P"],
    dt: Float[Array, "*B T H"],
    A: Float[Array, " H"],
    B: Float[Array, "*B T G N"],
    C: Float[Array, "*B T G N"],
    D: Float[Array, " H"] | Float[Array, "H P"] | None = None,
    z: Float[Array, "*B T H P"] | None = None,
    dt_bias: Float[Array, " H"] | None = None,
    state: Float[Array, "*B H P N"] | None = None,
    *,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] | None = None,
    mask: Flags | None = None,
    start: Float[Array, "*B H P N"] | None = None,
    **options: Any,
) -> tuple[Float[Array, "*B T H P"], Float[Array, "*B H P N"]]:
    """Outputs [B, T, H, P] and the final state [B, H, P, N]; the batch axis may be absent.

    x, z [B, T, H, P]; dt [B, T, H]; A [H] (negative: it decays), dt_bias [H]; B, C [B, T, G, N],
    head h uses group h // (H / G); D [H] or [H, P]. dt_limit (low, high) bounds the dt that bias
    and softplus leave. Other options as `linear_attention`, which computes it.

    >>> x = B = C = jnp.ones((4, 1, 1))
    >>> y, h = ssd(x, jnp.ones((4, 1)), jnp.log(jnp.full(1, 0.5)), B, C)
    >>> y[:, 0, 0].round(4).tolist()
    [1.0, 1.5, 1.75, 1.875]
    """
    op, batch = "ssd", batch_letter("ssd", "THP", x=x)
    groups = f"{batch}TGN"
    match(
        op,
        x=(x, f"{batch}THP"),
        dt=(dt, f"{batch}TH"),
        A=(A, "H"),
        B=(B, groups),
        C=(C, groups),
        z=(z, f"{batch}THP?"),
        dt_bias=(dt_bias, "H?"),
        D=(D, "H?" if getattr(D, "ndim", 1) == 1 else "HP"),
    )
    check_real(op, dt=dt, A=A, dt_bias=dt_bias, z=z)
    compute = accumulation_dtype(x.dtype)
    dtype, x = x.dtype, x.astype(compute)
    x, dt, z, B, C = leave_out(mask, x, dt.astype(compute), z, B, C)
    dt = step_size(dt, dt_bias, dt_softplus)
    if dt_limit is not None:
        dt = jnp.clip(dt, *within_limits(op, dt_limit))
    y, last = linear_attention(
        C,
        B,
        x * dt[..., None],
        dt * A.astype(compute).reshape((1,) * (dt.ndim - 1) + A.shape),
        flip_state(state),
        mask=mask,
        start=flip_state(start),
        **options,
    )
    if D is not None and D.ndim == 1:
        D = D[:, None]
    return narrowed(skip_and_gate(y, x, D, z), dtype), jnp.swapaxes(last, -1, -2)


def flip_state(state: Array | None) -> Array | None:
    """[.., P, N] here is [.., K, V] there: keys are B, values x."""
    return None if state is None else jnp.swapaxes(state, -1, -2)


def leave_out(mask: Array | None, *arrays: Array | None) -> list[Any]:
    """Zeros at masked steps."""
    if mask is None:
        return list(arrays)
    return [None if x is None else jnp.where(like(mask, x), x, 0) for x in arrays]


def step_size(delta: Array, bias: Array | None, softplus: bool) -> Array:
    """dt in at least float32; NaN where delta is not finite, which the bias does not learn from."""
    dt, lost = without_lost(delta.astype(accumulation_dtype(delta.dtype)))
    if bias is not None:
        dt += bias.astype(dt.dtype).reshape((1,) * (dt.ndim - 1) + bias.shape)
    return mark(lost, jax.nn.softplus(dt) if softplus else dt)


def within_limits(op: str, limits: tuple[float, float]) -> tuple[float, float]:
    """(low, high), or one error if no dt could lie between them."""
    low, high = limits
    if not 0 <= low <= high or high == 0:
        raise ValueError(f"{op}: dt_limit is {limits}, expected (low, high) with 0 <= low <= high")
    return low, high


def skip_and_gate(y: Array, u: Array, D: Array | None, z: Array | None) -> Array:
    """(y + D u) silu(z)."""
    if D is not None:
        D = D.astype(y.dtype).reshape((1,) * (y.ndim - D.ndim) + D.shape)
        y += D * without_lost(u.astype(y.dtype))[0]  # where u is lost, y is
    if z is None:
        return y
    z, lost = without_lost(z.astype(y.dtype))
    return mark(lost, y * jax.nn.silu(z))


def without_lost(x: Array) -> tuple[Array, Array]:
    """x with zeros for the numbers that are not finite, and which these are."""
    good = jnp.isfinite(x)
    return jnp.where(good, x, 0), ~good


def in_groups(op: str, name: str, x: Array, batch: str, sizes: Any) -> tuple[Any, Any]:
    """B or C as (varying [B?, T, G, N], None) or (None, constant [D, N])."""
    if not hasattr(x, "dtype"):
        match(op, sizes, **{name: (x, f"{batch}TGN")})
    if x.ndim == 2 and batch:
        match(op, sizes, **{name: (x, "DN")})
        return None, x
    if x.ndim == len(batch) + 2:
        x = x[..., None, :]
    groups = match(op, sizes, **{name: (x, f"{batch}TGN")})["G"]
    if sizes["D"] % groups:
        raise ValueError(f"{op}: {groups} groups of {name} do not divide {sizes['D']} channels")
    return x, None


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `selective_scan` for a spec, A and step sizes as Mamba initialises them."""
    draw = np.random.default_rng(seed)
    B, T, D, N = (spec.sizes[letter] for letter in "BTDN")
    return dict(
        u=draw.normal(size=(B, T, D)),
        delta=draw.normal(size=(B, T, D)),
        A=-np.broadcast_to(np.arange(1.0, N + 1), (D, N)).copy(),
        B=draw.normal(size=(B, T, N)),
        C=draw.normal(size=(B, T, N)),
        D=draw.normal(size=(D,)),
        z=draw.normal(size=(B, T, D)),
        delta_bias=np.log(np.expm1(draw.uniform(1e-3, 0.1, D))),
        state=draw.normal(size=(B, D, N)),
        delta_softplus=True,
    )


FILL = Inputs(0.0, 0.0, 0.0, 0.0)
SELECTIVE_SCAN = Op(
    name="selective_scan",
    reference="2312.00752",
    structure="diagonal",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        "sequential": Evaluator(in_chunks(naive, FILL)),
        "linear_scan": Evaluator(by_linear_scan, chunked=False),
    },
    table=(
        Rule("on CPU", lambda call: call.platform == "cpu", ("sequential",)),
        Rule("on accelerators", lambda call: True, ("linear_scan", "sequential")),
    ),
    fill=FILL,
    specs=(
        Spec("small", dict(B=2, T=37, D=4, N=3)),
        Spec("mamba", dict(B=1, T=2048, D=256, N=16)),
    ),
    example=example,
    apart=1,
    span=elementwise("u"),
)
