"""Time-invariant diagonal state spaces: moving averages, DSS, modal forms of long filters.

    h_t = a * h_{t-1} + B u_t          h [D, N], a = exp(log_a), real or complex
    y_t = Re sum_n C_n h_{t,n}         read after the write; no conjugates are added

Each of D channels drives N states of its own. It is a `linear_scan` with a constant multiplier;
and because nothing depends on time, y is also a convolution with the response to an impulse,

    K_l = Re sum_n C_n B_n a_n^l,      y = K * u + Re C a^(t+1) h_0        (2111.00396 eq. 4-5)

which "fft" evaluates without holding T states. Resets and masked steps break the invariance.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import takes_flow
from seqjax.core.types import Flags, Float, Inexact
from seqjax.ops.arguments import batch_letter, check_real, full_states, match, narrowed
from seqjax.ops.chunks import stepwise
from seqjax.ops.convolution import fft_convolution, same_kernel_everywhere
from seqjax.ops.linear_scan import LINEAR_SCAN, linear_scan
from seqjax.ops.op import Call, Evaluator, Op, Rule, Spec
from seqjax.ops.span import elementwise

FEW_STEPS = 64  # for which the scan is as good as the convolution


class Inputs(NamedTuple):
    u: Any  # [T, D], real
    mask: Any  # bool [T], or None


def naive(
    xs: Inputs,
    h: Array,
    *,
    log_a: Array,
    B: Array,
    C: Array,
    resets: Array | None = None,
    start: Array | None = None,
) -> tuple[Array, Array]:
    """The equations, one step after the other: u [T, D], h, B and C [D, N], log_a [D, N] or [N]."""
    a = jnp.broadcast_to(jnp.exp(log_a).reshape(-1, B.shape[1]), B.shape)

    def step(h: Array, x: Inputs) -> tuple[Array, Array]:
        new = a * h + B * x.u[:, None]
        h = new if x.mask is None else jnp.where(x.mask, new, h)
        return h, (C * h).sum(1).real

    return stepwise(step, h, xs, resets, start)


def by_linear_scan(
    xs: Inputs,
    h: Array,
    *,
    log_a: Array,
    B: Array,
    C: Array,
    resets: Array | None,
    start: Array | None,
    evaluator: str,
    chunk_size: int | None = None,
) -> tuple[Array, Array]:
    """One linear scan over D N channels; holds all states [T, D, N]."""
    T = len(xs.u)
    a = jnp.broadcast_to(jnp.exp(log_a).reshape(-1, B.shape[1]), B.shape)
    states, last = linear_scan(
        a.reshape(-1),
        (B[None] * xs.u[:, :, None]).reshape(T, B.size),
        h.reshape(-1),
        resets=resets,
        mask=xs.mask,
        start=None if start is None else start.reshape(-1),
        evaluator=evaluator,
        chunk_size=chunk_size,
    )
    return jnp.einsum("dn,tdn->td", C, states.reshape(T, *B.shape)).real, last.reshape(B.shape)


def convolve(
    xs: Inputs, h: Array, *, log_a: Array, B: Array, C: Array, resets: None, start: Any
) -> tuple[Array, Array]:
    """The same through the convolution theorem, from and to any state."""
    del resets, start
    u, n = xs.u.real, "n" if log_a.ndim == 1 else "dn"
    power = powers(log_a, len(u))
    a = jnp.broadcast_to(jnp.exp(log_a).reshape(-1, B.shape[1]), B.shape)
    y, _ = fft_convolution(u, jnp.einsum(f"dn,{n}t->td", C * B, power).real)
    y += jnp.einsum(f"dn,{n}t->td", C * a * h, power).real
    written = jnp.einsum(f"{n}t,td->dn", power[..., ::-1], u.astype(power.dtype))
    return y, power[..., -1].reshape(-1, B.shape[1]) * a * h + B * written


@takes_flow
def diagonal_ssm(
    u: Float[Array, "*B T D"],
    log_a: Inexact[Array, "D N"] | Inexact[Array, " N"],
    B: Inexact[Array, "D N"],
    C: Inexact[Array, "D N"],
    state: Inexact[Array, "*B D N"] | None = None,
    *,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Inexact[Array, "*B D N"] | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Float[Array, "*B T D"], Inexact[Array, "*B D N"]]:
    """Outputs [B, T, D] and the last state [B, D, N]; the batch axis may be absent.

    u [B, T, D], real; log_a [D, N], or [N] if all channels share it; B, C [D, N]; states [B, D, N].
    `resets` [B, T] forgets the past before a step (the state becomes `start`, or zero), `mask`
    [B, T] leaves out the steps where it is False, `reverse` runs from the last step to the first.
    "fft" gives way to a scan where there are flags, and is what None chooses where there are none.

    >>> one = jnp.ones((1, 1))
    >>> y, h = diagonal_ssm(jnp.ones((4, 1)), jnp.log(0.5 * one), one, one, evaluator="associative")
    >>> y[:, 0].round(4).tolist()
    [1.0, 1.5, 1.75, 1.875]
    """
    op = DIAGONAL_SSM.name
    batch = batch_letter(op, "TD", u=u)
    sizes = match(op, u=(u, f"{batch}TD"), B=(B, "DN"), C=(C, "DN"))
    shared = getattr(log_a, "ndim", 2) == 1
    sizes = match(op, sizes, log_a=(log_a, "N" if shared else "DN"))
    check_real(op, u=u)
    dtype = accumulation_dtype(*(x.dtype for x in (log_a, B, C, state) if x is not None))
    first, start = full_states(op, state, start, f"{batch}DN", sizes, dtype)
    y, last = DIAGONAL_SSM(
        Inputs(u, mask),
        first,
        batched=bool(batch),
        dtype=u.dtype,
        resets=resets,
        mask=mask,
        reverse=reverse,
        start=start,
        evaluator=("fft", "primitive") if evaluator == "fft" else evaluator,
        chunk_size=chunk_size,
        axis=axis,
        log_a=log_a,
        B=B,
        C=C,
    )
    return narrowed(y, u.dtype), last


def powers(log_a: Array, length: int) -> Array:
    """exp(log_a l) [..., length] for l = 0 ... length - 1."""
    steps = jnp.arange(length).astype(log_a.dtype)
    return jnp.exp(log_a[..., None] * steps.reshape((1,) * log_a.ndim + (length,)))


def impulse_response(log_a: Array, B: Array, C: Array, length: int) -> Array:
    """K [D, length]: what an impulse at step 0 leaves in the outputs."""
    n = "n" if log_a.ndim == 1 else "dn"
    return jnp.einsum(f"dn,{n}t->dt", C * B, powers(log_a, length)).real


def time_invariant(call: Call) -> str | None:
    return same_kernel_everywhere(call) if call.steps else "there are no steps"


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `diagonal_ssm` for a spec: decaying modes, that turn if "complex"."""
    draw = np.random.default_rng(seed)
    batch, T, D, N = (spec.sizes[letter] for letter in "BTDN")

    def normal(*shape):
        real = draw.normal(size=shape)
        return real + 1j * draw.normal(size=shape) if spec.options.get("complex") else real

    log_a = normal(D, N)
    return dict(
        u=draw.normal(size=(batch, T, D)),
        log_a=-np.exp(log_a.real - 2) + (1j * log_a.imag if np.iscomplexobj(log_a) else 0),
        B=normal(D, N),
        C=normal(D, N) / N**0.5,
        state=normal(batch, D, N),
    )


DIAGONAL_SSM = Op(
    name="diagonal_ssm",
    reference="2203.14343, 2206.11893, 2209.10655",
    structure="diagonal",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        **{
            name: Evaluator(partial(by_linear_scan, evaluator=name), chunked=e.chunked)
            for name, e in LINEAR_SCAN.evaluators.items()
            if name != "naive"
        },
        "fft": Evaluator(convolve, time_invariant, chunked=False),
    },
    table=(
        Rule(
            f"more than {FEW_STEPS} steps, all alike",
            lambda call: call.steps > FEW_STEPS and time_invariant(call) is None,
            ("fft",),
        ),
        Rule("few steps, or flags", lambda call: True, ("primitive",)),
    ),
    fill=Inputs(0.0, False),
    specs=(
        Spec("real", dict(B=2, T=37, D=3, N=4)),
        Spec("s4d", dict(B=2, T=37, D=3, N=4), dict(complex=True)),
        Spec("long", dict(B=1, T=2048, D=64, N=16), dict(complex=True)),
    ),
    example=example,
    span=elementwise("u"),
)
