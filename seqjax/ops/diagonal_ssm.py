"""Time-invariant diagonal state spaces: moving averages, DSS, modal forms of long filters.

    h_t = a * h_{t-1} + B u_t          h [D, N], a = exp(log_a), real or complex
    y_t = Re sum_n C_n h_{t,n}         read after the write; no conjugates are added

Each of D channels drives N states of its own. It is a `linear_scan` with a constant multiplier;
and because nothing depends on time, y is also a convolution with the response to an impulse,

    K_l = Re sum_n C_n B_n a_n^l,      y = K * u + Re C a^(t+1) h_0        (2111.00396 eq. 4-5)

which "fft" evaluates without holding T states. Resets and masked steps break the invariance.
"""

import jax.numpy as jnp
from jax import Array

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import takes_flow
from seqjax.ops.convolution import fft_convolution
from seqjax.ops.linear_scan import LINEAR_SCAN, linear_scan

EVALUATORS = (*LINEAR_SCAN.evaluators, "fft")
FEW_STEPS = 64  # for which the scan is as good as the convolution


@takes_flow
def diagonal_ssm(
    u: Array,
    log_a: Array,
    B: Array,
    C: Array,
    state: Array,
    *,
    resets: Array | None = None,
    mask: Array | None = None,
    start: Array | None = None,
    evaluator: str | None = None,
) -> tuple[Array, Array]:
    """Outputs [T, D] and the last state [D, N], for one example u [T, D] and a state [D, N].

    log_a [D, N], or [N] if all channels share it; B, C [D, N]. `resets` [T] forgets the past
    before a step (the state becomes `start`, or zero), `mask` [T] leaves out the steps where
    it is False. evaluator: one of EVALUATORS; "fft" gives way to a scan where there are flags, and
    is what None chooses where there are none.
    """
    T, dtype = len(u), accumulation_dtype(log_a.dtype, B.dtype, C.dtype, state.dtype)
    log_a, B, C, state = (z.astype(dtype) for z in (log_a, B, C, state))
    u = u.astype(log_a.real.dtype)
    invariant = resets is None and mask is None
    if evaluator == "fft" and not (invariant and T):
        evaluator = None
    elif evaluator is None and invariant and T > FEW_STEPS:
        evaluator = "fft"
    if evaluator == "fft":
        return convolve(u, log_a, B, C, state)
    drive = (B[None] * u.astype(B.dtype)[:, :, None]).reshape(T, B.size)
    states, last = linear_scan(
        jnp.broadcast_to(jnp.exp(log_a).reshape(-1, B.shape[1]), B.shape).reshape(-1),
        drive,
        state.reshape(-1),
        resets=resets,
        mask=mask,
        start=None if start is None else start.astype(dtype).reshape(-1),
        evaluator=evaluator,
    )
    y = jnp.einsum("dn,tdn->td", C, states.reshape(T, *B.shape)).real
    return y, last.reshape(B.shape)


def convolve(u: Array, log_a: Array, B: Array, C: Array, state: Array) -> tuple[Array, Array]:
    """The same through the convolution theorem, from and to any state."""
    T, n = len(u), "n" if log_a.ndim == 1 else "dn"
    power = powers(log_a, T)
    a = jnp.broadcast_to(jnp.exp(log_a).reshape(-1, B.shape[1]), B.shape)
    y, _ = fft_convolution(u, jnp.einsum(f"dn,{n}t->td", C * B, power).real)
    y += jnp.einsum(f"dn,{n}t->td", C * a * state, power).real
    written = jnp.einsum(f"{n}t,td->dn", power[..., ::-1], u.astype(power.dtype))
    return y, power[..., -1].reshape(-1, B.shape[1]) * a * state + B * written


def powers(log_a: Array, length: int) -> Array:
    """exp(log_a l) [..., length] for l = 0 ... length - 1."""
    steps = jnp.arange(length).astype(log_a.dtype)
    return jnp.exp(log_a[..., None] * steps.reshape((1,) * log_a.ndim + (length,)))


def impulse_response(log_a: Array, B: Array, C: Array, length: int) -> Array:
    """K [D, length]: what an impulse at step 0 leaves in the outputs."""
    n = "n" if log_a.ndim == 1 else "dn"
    return jnp.einsum(f"dn,{n}t->dt", C * B, powers(log_a, length)).real
