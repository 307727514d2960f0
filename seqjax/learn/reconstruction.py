"""How alike two dynamical systems are in the long run, from a series of each [T, features].

    state_space_divergence   D_stsp = sum_k p_k log(p_k / q_k)        how often each cell of the
                             space is visited, by the data p and by the model q
    power_spectrum_error     D_H = mean over features of sqrt(1 - sum_f sqrt(F_f G_f)), the
                             Hellinger distance of normalised power spectra, in [0, 1]

As measured in arXiv:2306.04406 (appendix): chaotic trajectories part soon, so what is compared is
the attractor's geometry and its rhythm, not points in time. 0 for a series and itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def state_space_divergence(
    data: Any, model: Any, *, bins: int = 30, smoothing: float = 1e-5
) -> float:
    """D_stsp, in nats, over `bins` bins a feature.

    They cover the data and a tenth of a standard deviation around it; what the model visits beyond
    is not counted. smoothing: added to every count. inf where the model visits none of it, or is
    not finite.
    """
    x, y = _pair(data, model)
    if bins < 1 or smoothing <= 0:
        raise ValueError(f"bins must be >= 1 and smoothing > 0, got {bins} and {smoothing}")
    if not np.isfinite(y).all():
        return float("inf")
    margin = 0.1 * x.std(axis=0, ddof=1)
    spans = zip(x.min(axis=0) - margin, x.max(axis=0) + margin, strict=True)
    edges = [np.linspace(*span, bins + 1) for span in spans]
    p, q = (np.histogramdd(v, edges)[0] for v in (x, y))
    if not q.sum():
        return float("inf")
    p, q = ((v + smoothing) / (v.sum() + smoothing * v.size) for v in (p, q))
    return float(np.sum(p * np.log(p / q)))


def power_spectrum_error(data: Any, model: Any, *, smoothing: float = 0.0) -> float:
    """D_H of series of one length, each feature standardised.

    smoothing: standard deviation, in frequencies, of the Gaussian that spectra are smoothed with.
    1 where the model is not finite, or stands still.
    """
    x, y = _pair(data, model)
    if len(x) != len(y):
        raise ValueError(f"spectra are of series of one length, got {len(x)} and {len(y)} steps")
    if not np.isfinite(y).all():
        return 1.0
    F, G = (_spectrum(v, smoothing) for v in (x, y))
    overlap = np.sum(np.sqrt(F * G), axis=0)
    return float(np.mean(np.sqrt(np.maximum(0, 1 - overlap))))


def _pair(data: Any, model: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(v, np.float64) for v in (data, model))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"two series [T, features] are compared, got {x.shape} and {y.shape}")
    return x, y


def _spectrum(x: np.ndarray, smoothing: float) -> np.ndarray:
    """Power [frequencies, features] that sums to 1; 0 of what does not move."""
    x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    power = np.abs(np.fft.rfft(x, axis=0)) ** 2
    if smoothing:
        from scipy.ndimage import gaussian_filter1d  # a fifth of a second, of every command's start

        power = gaussian_filter1d(power, smoothing, axis=0)
    total = power.sum(axis=0)
    return power / np.where(total > 0, total, 1)
