"""Elementwise recurrences: gates that act on each channel alone."""

from seqjax.layers.elementwise.indrnn import IndRNN
from seqjax.layers.elementwise.min_gru import MinGRU
from seqjax.layers.elementwise.min_lstm import MinLSTM
from seqjax.layers.elementwise.qrnn import QRNN
from seqjax.layers.elementwise.slstm import SLSTM
from seqjax.layers.entry import Entry

ROWS: dict[str, Entry] = {
    "indrnn": Entry(
        IndRNN,
        "Independently recurrent network",
        "1803.04831",
        state="hidden or features",
        variants={"tanh": dict(hidden=3, activation="tanh"), "linear": dict(activation="linear")},
    ),
    "min_gru": Entry(
        MinGRU,
        "minGRU",
        "2410.01201",
        state="expansion * features",
        variants={"expanded": dict(expansion=1.5, candidate="linear")},
    ),
    "min_lstm": Entry(
        MinLSTM,
        "minLSTM: normalised gates",
        "2410.01201",
        state="expansion * features",
        variants={"expanded": dict(expansion=1.5, candidate="linear")},
    ),
    "qrnn": Entry(
        QRNN,
        "Quasi-recurrent network: f-, fo- and ifo-pooling, convolution of any width",
        "1611.01576",
        state="(hidden or features) + (window - 1) * features",
        smoke=dict(hidden=3),
        variants={
            "f": dict(pooling="f", window=1),
            "ifo": dict(hidden=3, pooling="ifo", window=3, zoneout=0.2),
        },
    ),
    "slstm": Entry(
        SLSTM,
        "sLSTM: exponential gates, normaliser, stabiliser",
        "2405.04517",
        state="4 * (hidden or features)",
        smoke=dict(heads=2),
        variants={"exp": dict(hidden=3, forget="exp")},
    ),
}
