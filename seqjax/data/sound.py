"""Sound as numbers: recordings of .wav files, and their mel-frequency cepstral coefficients.

    frames   y_{hop t + n} w_n, n < N       a periodic Hann window of the N points of the transform
    m        log of the filters times |rfft of a frame|^2
    mfcc     the first coefficients of the orthonormal DCT-II of m       Davis & Mermelstein 1980

The mel scale is HTK's, 2595 log10(1 + f / 700), or Slaney's, linear below 1 kHz and logarithmic
above; a filter is a triangle between its neighbours' tips, of height 1 or, "area", of area 1.
"""

from __future__ import annotations

import io
import wave
from functools import lru_cache
from typing import Literal

import numpy as np

Scale = Literal["htk", "slaney"]
LEAST_POWER, RANGE = 1e-10, 80.0  # of decibels
LINEAR, KNEE, STEP = 200 / 3, 1000.0, np.log(6.4) / 27  # of Slaney's scale: Hz per mel, Hz, mels


def read_wav(content: bytes, rate: int) -> np.ndarray:
    """int16 [N] of a recording of one channel of 16 bits. Raises ValueError or EOFError."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            found = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            frames, expected = file.readframes(file.getnframes()), file.getnframes()
    except wave.Error as error:
        raise ValueError(str(error)) from error
    if found != (1, 2, rate):
        raise ValueError(f"it has {found[0]} channels of {8 * found[1]} bits at {found[2]} Hz, "
                         f"and should have one of 16 at {rate}")  # fmt: skip
    if not expected or len(frames) != 2 * expected:
        raise EOFError(f"it has {len(frames) // 2} numbers of {expected}")
    return np.frombuffer(frames, "<i2").astype(np.int16)


def mel(hertz: np.ndarray, scale: Scale) -> np.ndarray:
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    above = KNEE / LINEAR + np.log(np.maximum(hertz, KNEE) / KNEE) / STEP
    return np.where(hertz < KNEE, hertz / LINEAR, above)


def hertz(mels: np.ndarray, scale: Scale) -> np.ndarray:
    if scale == "htk":
        return 700 * (10 ** (mels / 2595) - 1)
    above = KNEE * np.exp(STEP * (mels - KNEE / LINEAR))
    return np.where(mels < KNEE / LINEAR, mels * LINEAR, above)


@lru_cache
def mel_filters(rate: int, points: int, mels: int, scale: Scale, area: bool) -> np.ndarray:
    """[mels, points / 2 + 1]: tips evenly spaced in mel from 0 to rate / 2."""
    tips = hertz(np.linspace(0, mel(np.array(rate / 2), scale), mels + 2), scale)
    bins = np.linspace(0, rate / 2, 1 + points // 2)
    left, middle, right = (tips[i : mels + i, None] for i in range(3))
    filters = np.maximum(
        0, np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle))
    )
    return filters * (2 / (right - left) if area else 1)


@lru_cache
def cosines(count: int, mels: int) -> np.ndarray:
    """The first `count` rows [count, mels] of the orthonormal DCT-II."""
    n, k = np.arange(mels), np.arange(count)[:, None]
    rows = np.sqrt(2 / mels) * np.cos(np.pi * (n + 0.5) * k / mels)
    rows[0] /= np.sqrt(2)
    return rows


def log_mel(
    y: np.ndarray,
    rate: int,
    *,
    points: int,
    window: int,
    hop: int,
    mels: int,
    scale: Scale = "htk",
    area: bool = False,
    center: bool = True,
    decibels: bool = True,
) -> np.ndarray:
    """[frames, mels] of a recording y [N].

    window: of the `points` of a transform, those in the middle that the window has.
    center: the middle of frame t is at hop t, with zeros around the recording; else its beginning.
    decibels: 10 log10, of at least 80 below the loudest of all; else log(m + 1e-6).
    """
    y = np.pad(np.asarray(y, np.float64), points // 2 if center else 0)
    frames = np.lib.stride_tricks.sliding_window_view(y, points)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    before = (points - window) // 2
    weights = np.pad(hann, (before, points - window - before))
    power = np.abs(np.fft.rfft(frames * weights)) ** 2
    m = power @ mel_filters(rate, points, mels, scale, area).T
    if not decibels:
        return np.log(m + 1e-6)
    level = 10 * np.log10(np.maximum(LEAST_POWER, m))
    return np.maximum(level, level.max() - RANGE)


def mfcc(log_mels: np.ndarray, count: int) -> np.ndarray:
    """[frames, count] of `log_mel` [frames, mels]."""
    return log_mels @ cosines(count, log_mels.shape[1]).T
