"""Causal depthwise convolution over time, short (a few taps) or long (as long as the input).

    y_t = bias + sum_j kernel[j] x_{t - K + 1 + j}       j = 0 .. K-1, the last tap is the present

The state is the window of the last K - 1 inputs. A tap never reaches across a reset: there it
meets the reset state instead (zero by default). A masked step does not move the window. Short
ones feed Mamba, Griffin and the gated delta rule; a token shift is the kernel (1, 0). Long ones
are the filters of S4, H3 and Hyena (2302.10866 eq. 1), by FFT in O((T + K) log (T + K)).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import takes_flow
from seqjax.core.types import Flags, Float
from seqjax.ops.arguments import batch_letter, full_states, like, match, narrowed
from seqjax.ops.chunks import power_of_two, sequential as in_chunks, stepwise
from seqjax.ops.op import Call, Evaluator, Op, Rule, Spec
from seqjax.ops.span import pushed, taken

MOST_TAPS = 64  # that are worth one pass over the input each


class Inputs(NamedTuple):
    x: Any  # [T, D]
    mask: Any  # [T] bool, or None


def naive(
    xs: Inputs,
    window: Array,
    *,
    kernel: Array,
    resets: Array | None = None,
    start: Array | None = None,
) -> tuple[Array, Array]:
    """The equation, one step after the other: x [T, D], window [K-1, D], kernel [K, D]."""

    def step(window: Array, now: Inputs) -> tuple[Array, Array]:
        seen = jnp.concatenate([window, now.x[None]])
        moved = seen[1:] if now.mask is None else jnp.where(now.mask, seen[1:], window)
        return moved, (kernel * seen).sum(0)

    return stepwise(step, window, xs, resets, start)


def sequential(xs: Inputs, window: Array, **options: Any) -> tuple[Array, Array]:
    """The loop in chunks; the steps that fill the last chunk up are masked ones."""
    mask = jnp.ones(xs.x.shape[:1], bool) if xs.mask is None else xs.mask
    return in_chunks(naive, FILL)(Inputs(xs.x, mask), window, **options)


def taps(
    xs: Inputs, window: Array, *, kernel: Array, resets: Array | None, start: Array | None
) -> tuple[Array, Array]:
    """One shifted product per tap."""
    if xs.mask is None:
        return unmasked_taps(xs.x, window, kernel, resets, start)
    # Move the window and the steps that count to the end, in their order: now they are adjacent.
    counts = jnp.concatenate([jnp.ones(window.shape[:1], bool), xs.mask])
    order = jnp.argsort(counts, stable=True)
    if resets is not None:
        resets = jnp.concatenate([jnp.zeros(window.shape[:1], bool), resets])[order]
    x = jnp.concatenate([window, xs.x])[order]
    y, window = unmasked_taps(x, jnp.zeros_like(window), kernel, resets, start)
    return y[jnp.argsort(order)][window.shape[0] :], window


def unmasked_taps(
    x: Array, window: Array, kernel: Array, resets: Array | None, start: Array | None
) -> tuple[Array, Array]:
    steps, back = x.shape[0], window.shape[0]
    x = jnp.concatenate([window, x])  # step t is row back + t
    if resets is None:
        seen = [x[j : j + steps] for j in range(back + 1)]
        return sum_of_products(kernel, seen), x[steps:]
    t = jnp.arange(steps)
    first = lax.cummax(jnp.where(resets, t, -back))  # of the segment of each step

    def since_reset(rows: Array, time: Array, first: Array) -> Array:
        """The rows of those times, or of the reset state where they lie before `first`."""
        fresh = jnp.zeros_like(rows)
        if start is not None and back:
            fresh = start[jnp.clip(back + time - first, 0, back - 1)]
        return jnp.where((time >= first)[:, None], rows, fresh)

    seen = [since_reset(x[j : j + steps], t + j - back, first) for j in range(back + 1)]
    last = first[-1] if steps else jnp.array(-back)
    times = jnp.arange(steps - back, steps)
    return sum_of_products(kernel, seen), since_reset(x[steps:], times, last)


def sum_of_products(kernel: Array, seen: list[Array]) -> Array:
    return sum((kernel[j][None] * x for j, x in enumerate(seen)), jnp.zeros_like(seen[0]))


def fft(
    xs: Inputs, window: Array, *, kernel: Array, resets: None, start: Any
) -> tuple[Array, Array]:
    """By the convolution theorem.

    What is not finite reaches the outputs that its taps reach. Rounding is relative to the largest
    input of all, also to one of the future: a number of 1e30 leaves nothing of the others.
    """
    del resets, start
    steps, back = xs.x.shape[0], window.shape[0]
    x = jnp.concatenate([window, xs.x])
    size = power_of_two(max(steps + back, 1))  # outputs before the first step may wrap around
    good = jnp.isfinite(x)
    place = jnp.arange(len(x), dtype=jnp.int32)[:, None]
    last_lost = lax.cummax(jnp.where(good, -back - 1, place))
    to, back_to = jnp.fft.rfft, partial(jnp.fft.irfft, n=size)
    if jnp.iscomplexobj(x):
        to, back_to = jnp.fft.fft, jnp.fft.ifft
    spectrum = to(jnp.where(good, x, 0), size, axis=0)
    y = back_to(spectrum * to(kernel[::-1], size, axis=0), axis=0)
    y = jnp.where(place - last_lost <= back, jnp.nan, y[: len(x)])
    return y[back:], x[steps:]


@takes_flow
def short_convolution(
    x: Float[Array, "*B T D"],
    kernel: Float[Array, "W D"],
    state: Float[Array, "*B P D"] | None = None,
    *,
    bias: Float[Array, " D"] | None = None,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Float[Array, "*B P D"] | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Float[Array, "*B T D"], Float[Array, "*B P D"]]:
    """Outputs [B, T, D] and the window of the last K - 1 inputs [B, K-1, D]; B may be absent.

    x [B, T, D], kernel [K, D] with the present at kernel[K-1], bias [D], states [B, K-1, D] with
    the latest input last. `resets` [B, T] forgets the past before a step (the window becomes
    `start`, or zero), `mask` [B, T] leaves out the steps where it is False, `reverse` runs
    from the last step to the first.

    >>> y, window = short_convolution(jnp.ones((4, 1)), jnp.array([[2.0], [1.0]]))
    >>> y[:, 0].tolist(), window[:, 0].tolist()
    ([1.0, 3.0, 3.0, 3.0], [1.0])
    """
    op = CONVOLUTION.name
    batch = batch_letter(op, "TD", x=x)
    sizes = match(op, x=(x, f"{batch}TD"), kernel=(kernel, "KD"), bias=(bias, "D?"))
    if not sizes["K"]:
        raise ValueError(f"{op}: kernel has no taps")
    sizes, letters = {**sizes, "W": sizes["K"] - 1}, f"{batch}WD"
    first, start = full_states(op, state, start, letters, sizes, x.dtype)
    y, window = CONVOLUTION(
        Inputs(x, mask),
        first,
        batched=bool(batch),
        dtype=x.dtype,
        resets=resets,
        mask=mask,
        reverse=reverse,
        start=start,
        evaluator=evaluator,
        chunk_size=chunk_size,
        axis=axis,
        kernel=kernel,
    )
    if bias is not None:
        both = accumulation_dtype(y.dtype, bias.dtype)
        y = y.astype(both) + bias.astype(both).reshape((1,) * (y.ndim - 1) + bias.shape)
    if mask is not None:  # the bias is not for steps left out
        y = jnp.where(like(mask, y), y, 0)
    return narrowed(y, x.dtype), window


@takes_flow
def fft_convolution(
    u: Float[Array, "*B T D"],
    kernel: Float[Array, "L D"],
    D: Float[Array, " D"] | None = None,
    state: Float[Array, "*B P D"] | None = None,
    *,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Float[Array, "*B P D"] | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = ("fft", "taps", "sequential"),
    axis: str | None = None,
) -> tuple[Float[Array, "*B T D"], Float[Array, "*B P D"]]:
    """y_t = D u_t + sum_l kernel[l] u_{t-l}, and the last L - 1 inputs.

    u [B, T, D] or [T, D], kernel [L, D] with the present at kernel[0], D [D], state [B, L-1, D].
    Any T and L. With `resets` or `mask`, as in `short_convolution`, the direct form runs.

    >>> y, window = fft_convolution(jnp.ones((4, 1)), jnp.array([[1.0], [2.0]]))
    >>> y[:, 0].round(4).tolist()
    [1.0, 3.0, 3.0, 3.0]
    """
    match("fft_convolution", kernel=(kernel, "LD"), D=(D, "D?"))
    if D is not None:
        kernel = kernel.at[0].add(D.astype(kernel.dtype))
    return short_convolution(
        u,
        kernel[::-1],
        state,
        resets=resets,
        mask=mask,
        start=start,
        reverse=reverse,
        evaluator=evaluator,
        axis=axis,
    )


def few_taps(call: Call) -> str | None:
    count = len(call.options.get("kernel", ()))
    return None if count <= MOST_TAPS else f"one pass per tap, {count} taps are over {MOST_TAPS}"


def same_kernel_everywhere(call: Call) -> str | None:
    if call.resets:
        return "resets make the taps differ from step to step"
    return "masked steps make the taps differ from step to step" if call.masked else None


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `short_convolution` for a spec."""
    draw = np.random.default_rng(seed)
    B, T, D, K = (spec.sizes[letter] for letter in "BTDK")
    return dict(
        x=draw.normal(size=(B, T, D)),
        kernel=draw.normal(size=(K, D)) / K**0.5,
        bias=draw.normal(size=(D,)),
        state=draw.normal(size=(B, K - 1, D)),
    )


FILL = Inputs(0.0, False)
CONVOLUTION = Op(
    name="short_convolution",
    reference="2312.00752, 2302.10866",
    structure="shift",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        "sequential": Evaluator(sequential),
        "taps": Evaluator(taps, few_taps, chunked=False),
        "fft": Evaluator(fft, same_kernel_everywhere, chunked=False),
    },
    table=(
        Rule(f"at most {MOST_TAPS} taps", lambda call: few_taps(call) is None, ("taps",)),
        Rule("a long kernel, at most 8 steps", lambda call: call.steps <= 8, ("sequential",)),
        Rule("a long kernel", lambda call: True, ("fft", "sequential")),
    ),
    fill=FILL,
    specs=(
        Spec("short", dict(B=2, T=37, D=3, K=4)),
        Spec("mamba", dict(B=1, T=2048, D=512, K=4)),
        Spec("long", dict(B=1, T=2048, D=64, K=2048)),
    ),
    example=example,
    span=pushed(taken),
)
