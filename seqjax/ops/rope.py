"""Rates of rotary positions: the angle of one step, for each pair of `size` channels.

    w_i = base^(-2 i / size)                                         2104.09864 eq. 15

and what stretches them beyond the length that a model was trained at. Each is (rates, gain):
float64 [ceil(size / 2)], and what turned channels are multiplied by; the options of `Attention`.
"""

import math
from collections.abc import Sequence

import numpy as np

Rates = tuple[np.ndarray, float]


def plain(size: int, base: float) -> Rates:
    return base ** (-np.arange(0, size, 2) / max(size, 1)), 1.0


def linear(size: int, base: float, *, factor: float) -> Rates:
    """Positions divided by `factor` (2306.15595)."""
    return plain(size, base)[0] / factor, 1.0


def proportional(size: int, base: float, *, share: float, factor: float = 1.0) -> Rates:
    """The pairs of a whole head of `size` channels, of which only the fastest `share` turns."""
    rates = plain(size, base)[0] / factor
    rates[int(share * size // 2) :] = 0
    return rates, 1.0


def yarn(
    size: int,
    base: float,
    *,
    original: int,
    factor: float,
    fast: float = 32.0,
    slow: float = 1.0,
    truncate: bool = True,
    gain: float | None = None,
) -> Rates:
    """Pairs that turn more than `fast` times in `original` steps as they were, those that turn less
    than `slow` times divided by `factor`, in between a ramp (2309.00071 sec. 3.2).

    gain: 0.1 ln(factor) + 1 by default (eq. 22, half of it to queries, half to keys).
    """
    rates = plain(size, base)[0]
    ends = [
        size * math.log(original / (2 * math.pi * n)) / (2 * math.log(base)) for n in (fast, slow)
    ]
    if truncate:
        ends = [math.floor(ends[0]), math.ceil(ends[1])]
    low, high = max(ends[0], 0), min(ends[1], size - 1)
    ramp = np.clip((np.arange(len(rates)) - low) / (high - low or 1e-3), 0, 1)
    rates = rates * (1 - ramp) + rates / factor * ramp
    return rates, mscale(factor) if gain is None else gain


def mscale(factor: float, scale: float = 1.0) -> float:
    """0.1 scale ln(factor) + 1; 1 where nothing is stretched."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1


def longrope(
    size: int,
    base: float,
    *,
    factors: Sequence[float],
    original: int,
    factor: float,
    gain: float | None = None,
) -> Rates:
    """Each pair divided by its own of `factors` (2402.13753).

    gain: sqrt(1 + ln(factor) / ln(original)) by default, for `factor` times the original length.
    """
    if len(factors) != (size + 1) // 2:
        raise ValueError(f"longrope has {len(factors)} factors, expected {(size + 1) // 2}")
    if gain is None:
        gain = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return plain(size, base)[0] / np.asarray(factors), gain


def llama3(
    size: int, base: float, *, original: int, factor: float, low: float, high: float
) -> Rates:
    """Pairs that turn more than `high` times in `original` steps as they were, those that turn less
    than `low` times divided by `factor`, in between a mean of both (Llama 3.1, 2407.21783)."""
    rates = plain(size, base)[0]
    share = np.clip((original * rates / (2 * math.pi) - low) / (high - low), 0, 1)
    return rates * share + rates / factor * (1 - share), 1.0
