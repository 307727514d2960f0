"""Where a step stands in its sequence: positions that resets and masks count, rotary angles, and
biases by distance."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.core.axis import Axis, Summary, combine, fold
from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import takes_flow
from seqjax.core.monoid import resettable, total
from seqjax.ops.chunks import LOG_ZERO


@takes_flow
def places(
    count: Array,
    steps: int,
    *,
    size: int | None = None,
    resets: Array | None = None,
    mask: Array | None = None,
    axis: Axis | None = None,
) -> tuple[Array, Array]:
    """The positions int32 [steps] since the start or the last reset, and that of the next step.

    `count` is the position of the first; a masked step takes none (the next one has its position).
    With `size` they are the places in chunks of that many steps.
    """
    taken = jnp.ones(steps, jnp.int32) if mask is None else mask.astype(jnp.int32)
    resets = resets if resets is None or mask is None else resets & mask
    passed, after = counted(count, taken, resets, axis)
    return (passed, after) if size is None else (passed % size, after % size)


def counted(
    count: Array, taken: Array, resets: Array | None, axis: Axis | None = None
) -> tuple[Array, Array]:
    """Sums int32 [T, ...] of what was taken [T, ...] before each step, from `count` [...] or since
    the last reset [T], and the sum after all steps."""
    end = None
    if axis is not None:
        elements = (jnp.zeros(len(taken), bool) if resets is None else resets, taken)
        zero = jnp.zeros_like(taken[0])
        cut, element = fold(resettable(total, zero), elements)
        count, end = combine(Summary(element, cut, zero, total), count, axis)
    passed = count[None] + jnp.cumsum(taken, axis=0, dtype=jnp.int32) - taken
    if resets is not None:
        begun = resets.reshape(-1, *(1,) * (taken.ndim - 1))
        passed -= lax.cummax(jnp.where(begun, passed, 0))
    after = jnp.concatenate([count[None], passed + taken])[-1] if end is None else end
    return passed, after


def angles(positions: Array, rates: Any, dtype: Any) -> Array:
    """positions [T] * rates [...] as angles [T, ...] in `dtype`, up to whole turns.

    A product in float32 has an error of its size, that is, of the position. So below float64 the
    share of a turn is kept in integers, which are exact modulo 1: rate / (2 pi) = hi 2^-32 + lo
    2^-47, for |position| < 2^31. Angles are then within 3e-7 up to position 10^6, and those of two
    positions differ by that of their distance anywhere.
    rates: float64 constants of numpy, or an array that is learned, of which a turn's share is
        rounded to its 24 bits, once for all positions; its derivative is `positions`.
    """
    shape = (len(positions),) + (1,) * np.ndim(rates)
    learned = isinstance(rates, Array)
    product = positions.astype(dtype).reshape(shape) * jnp.asarray(rates, dtype)[None]
    if jnp.finfo(dtype).bits == 64 or not jnp.issubdtype(positions.dtype, jnp.integer):
        return product
    lib = jnp if learned else np
    share = rates / (2 * math.pi)
    share = (share - lib.floor(share + 0.5)) * 2.0**32
    hi = lib.floor(share)
    hi, lo = (jnp.asarray(z.astype(np.int32))[None] for z in (hi, (share - hi) * 2.0**15))
    n = positions.astype(jnp.int32).reshape(shape)
    turns = n * hi + (n >> 15) * lo + (((n & 0x7FFF) * lo) >> 15)  # int32 wraps at whole turns
    angle = turns.astype(dtype) * jnp.asarray(2 * math.pi / 2**32, dtype)
    if not learned:
        return angle
    return lax.stop_gradient(angle) + (product - lax.stop_gradient(product))


def sinusoids(positions: Array, features: int, dtype: Any) -> Array:
    """[sin(n w), cos(n w)] [T, features] of positions n [T], w_k = 10000^(-2k / features)
    (1706.03762 sec. 3.5, sines first as Transformer-XL has them)."""
    w = 10000.0 ** (-np.arange(0, features, 2) / features)
    angle = angles(positions, w, accumulation_dtype(dtype))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)[:, :features].astype(dtype)


def rotary(
    x: Array,
    positions: Array,
    *,
    fraction: float = 1.0,
    base: float = 10_000.0,
    rates: Sequence[float] | None = None,
    gain: float = 1.0,
) -> Array:
    """x [T, H, K] with the first `fraction` of its channels turned by positions [T].

    Channels i and i + R/2 of the first R form a pair, turned by position * base^(-2 i / R)
    (arXiv:2104.09864 eq. 15, with the pairing of most released weights): products of two turned
    vectors depend on the difference of their positions only. `rates` gives the angles of a step
    themselves, and with them R; what is turned is multiplied by `gain`.
    """
    if rates is None:
        half = int(x.shape[-1] * fraction) // 2
        turns = base ** (-np.arange(half) / max(half, 1))
    else:
        half, turns = len(rates), np.asarray(rates)
    dtype = accumulation_dtype(x.dtype)
    angle = angles(positions, turns, dtype)[:, None]
    cos, sin = ((gain * f(angle)).astype(x.dtype) for f in (jnp.cos, jnp.sin))
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


# ---- what a distance is worth ---------------------------------------------------------------


def alibi(heads: int, window: int) -> np.ndarray:
    """Bias [heads, window] by distance: -m_h n (2108.12409 sec. 3).

    m_h = 2^(-8 h / n), h = 1 .. n, for a power n of two; the heads beyond the largest one in
    `heads` have every other slope of the series for twice as many (as released).
    """
    n = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * h / n) for h in range(1, n + 1)]
    slopes += [2 ** (-4 * h / n) for h in range(1, 2 * (heads - n), 2)]
    return -np.asarray(slopes)[:, None] * np.arange(window)


def hard_alibi(heads: int, window: int, masked: int) -> np.ndarray:
    """Bias [heads, window] by distance: of the first `masked` heads the h-th (from 1) sees the
    last h steps, itself among them, the others all (2402.01032 sec. 2.2, as released)."""
    sees = np.where(np.arange(heads) < masked, np.arange(1, heads + 1), window)
    return np.where(np.arange(window) < sees[:, None], 0.0, LOG_ZERO)
