"""Recordings, their coefficients by naive sums and by scipy, and spoken words."""

import math

import numpy as np
import pytest
from made_series import prepares, spoken, wav
from scipy.fft import dct

from seqjax.data import DataError
from seqjax.data.sets.speech import COMMANDS, DIGITS, WORDS
from seqjax.data.sound import cosines, hertz, log_mel, mel, mel_filters, mfcc, read_wav
from seqjax.tasks import make


def test_coefficients_are_those_of_sums_over_points_and_bands():
    rate, points, window, hop, mels, count = 800, 16, 12, 5, 6, 4
    y = np.random.RandomState(0).standard_normal(40)
    found = log_mel(y, rate, points=points, window=window, hop=hop, mels=mels, decibels=False)
    around = [0.0] * (points // 2) + list(y) + [0.0] * (points // 2)
    tips = [700 * (10 ** (i / (mels + 1) * math.log10(1 + 400 / 700)) - 1) for i in range(mels + 2)]
    assert len(found) == 1 + len(y) // hop
    for t, row in enumerate(found):
        frame = [around[hop * t + n] for n in range(points)]
        hann = [0.0] * 2 + [math.sin(math.pi * n / window) ** 2 for n in range(window)] + [0.0] * 2
        power = []
        for k in range(points // 2 + 1):
            turn = [2 * math.pi * k * n / points for n in range(points)]
            real = sum(v * w * math.cos(a) for v, w, a in zip(frame, hann, turn))
            imaginary = sum(v * w * math.sin(a) for v, w, a in zip(frame, hann, turn))
            power.append(real**2 + imaginary**2)
        for band, value in enumerate(row):
            left, tip, right = tips[band : band + 3]
            total = 0.0
            for k, p in enumerate(power):
                f = k * rate / points
                total += p * max(0.0, min((f - left) / (tip - left), (right - f) / (right - tip)))
            np.testing.assert_allclose(value, math.log(total + 1e-6), rtol=1e-9)
    expected = dct(found, type=2, norm="ortho", axis=1)[:, :count]
    np.testing.assert_allclose(mfcc(found, count), expected, atol=1e-12)
    np.testing.assert_allclose(
        cosines(mels, mels) @ cosines(mels, mels).T, np.eye(mels), atol=1e-12
    )


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_scales_go_back_and_filters_have_their_size(scale):
    f = np.array([0, 20, 999, 1000, 1001, 8000.0])
    np.testing.assert_allclose(hertz(mel(f, scale), scale), f, atol=1e-9)
    assert abs(float(mel(np.array(1000.0), scale)) - (15 if scale == "slaney" else 1000)) < 0.02
    fine = mel_filters(16_000, 8192, 10, scale, True)
    np.testing.assert_allclose(fine.sum(1) * 16_000 / 8192, 1, rtol=1e-3)
    assert 0.99 < mel_filters(16_000, 8192, 10, scale, False).max() <= 1


def test_decibels_end_eighty_below_the_loudest():
    y = np.concatenate([np.zeros(4000), np.sin(np.arange(4000))])
    level = log_mel(y, 8000, points=256, window=256, hop=128, mels=20)
    np.testing.assert_allclose(level.min(), level.max() - 80)


def test_recordings_are_read_and_others_refused():
    sound = np.array([0, 1, -1, 32767, -32768])
    np.testing.assert_array_equal(read_wav(wav(sound), 16_000), sound)
    for content, message in (
        (wav(sound, 8000), "at 8000 Hz, and should have one of 16 at 16000"),
        (wav([]), "it has 0 numbers of 0"),
        (b"RIFF", None),
        (b"RIFX" + wav(sound)[4:], "RIFF"),
    ):
        with pytest.raises((ValueError, EOFError), match=message):
            read_wav(content, 16_000)


def test_words_are_those_of_the_two_lists(tmp_path, monkeypatch):
    assert len(WORDS) == 35 and len(COMMANDS) == len(DIGITS) == 10
    assert WORDS == tuple(sorted(WORDS)) and set(COMMANDS) | set(DIGITS) <= set(WORDS)
    made = prepares(tmp_path, monkeypatch)
    made("speech_commands", "archive")
    task = make("speech_commands", held_out="test")
    sizes = sorted((len(one["sound"]), WORDS[one["word"]]) for one in task.train)
    assert sizes == [(3, "yes"), (4, "yes"), (6, "bed")]
    (one,) = task.validation(1, 16_000)
    assert WORDS[one.y[0]] == "yes" and one.x.shape == (1, 16_000, 1)
    np.testing.assert_allclose(one.x[0, :8, 0] * 2**15, [100, 200, 300, 400, 500, 600, 700, 0])
    assert not one.x[0, 7:].any()
    task = make("speech_commands", form="mfcc")
    (one,) = task.validation(1, 161)
    trained = np.concatenate([task.encode(row, 161)["x"] for row in task.train])
    assert one.x.shape == (1, 161, 20)
    np.testing.assert_allclose(trained.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(trained.std(0), 1, atol=1e-9)


def test_what_is_longer_than_a_second_is_refused(tmp_path, monkeypatch):
    made = prepares(tmp_path, monkeypatch)
    made("sc10", "folder")
    path = tmp_path / "speech_commands/yes/a_nohash_0.wav"
    path.write_bytes(wav(np.zeros(16_001)))
    with pytest.raises(DataError, match="a_nohash_0.wav .*16001 numbers, more than a second"):
        make("speech_commands", words="commands")
    assert len(spoken()) == 8
