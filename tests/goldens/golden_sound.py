"""Mel-frequency cepstral coefficients: librosa."""

import jax.numpy as jnp
import numpy as np

from seqjax.data.sound import log_mel, mel_filters, mfcc


def coefficients(given, meta):
    area = meta["norm"].startswith("area")
    filters = mel_filters(meta["sr"], meta["n_fft"], meta["n_mels"], meta["mel_scale"], area)
    m = log_mel(
        np.asarray(given["y"]), meta["sr"], points=meta["n_fft"], window=meta["win_length"],
        hop=meta["hop_length"], mels=meta["n_mels"], scale=meta["mel_scale"], area=area,
        center=meta["center"],
    )  # fmt: skip
    found = {"mfcc": mfcc(m, meta["n_mfcc"]), "log_mel": m, "filters": filters}
    return {name: jnp.asarray(value) for name, value in found.items()}


ADAPTERS = {"mfcc": {"": coefficients}}
