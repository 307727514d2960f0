"""The classic networks."""

from seqjax.layers.classic.bidirectional import Bidirectional
from seqjax.layers.classic.elman import Elman
from seqjax.layers.classic.gru import GRU
from seqjax.layers.classic.lstm import LSTM
from seqjax.layers.classic.stacked import Stacked
from seqjax.layers.classic.zoneout import Zoneout
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "elman": Entry(
        Elman,
        "Elman network",
        "Elman 1990",
        state="hidden or features",
        variants={
            "relu": dict(activation="relu", feedthrough=True),
            "output": dict(hidden=3, activation="sigmoid", leak=0.5, outputs=2, bias=False),
        },
    ),
    "lstm": Entry(
        LSTM,
        "LSTM with forget gate",
        "Gers et al. 2000",
        state="(projection or hidden) + hidden + gated",
        smoke=dict(hidden=3),
        variants={
            "peepholes": dict(hidden=3, peepholes=True),
            "norm": dict(hidden=3, norm=True, chrono=9.0),
            "projected": dict(hidden=5, projection=3, coupled=True, cell_clip=0.5),
            "full": dict(hidden=2, full_recurrence=True, peepholes=True, input_activation="linear"),
            "janet": dict(hidden=3, gates="f", coupled=True, output_activation="linear"),
        },
    ),
    "gru": Entry(
        GRU,
        "Gated recurrent unit",
        "1406.1078",
        state="hidden or features",
        variants={
            "reset_after": dict(reset="after"),
            "norm": dict(hidden=3, reset="after", norm=True),
            "unbiased": dict(reset="after", bias=False),
        },
    ),
    "bidirectional": Entry(
        Bidirectional,
        "Bidirectional wrapper over any layer",
        "Schuster & Paliwal 1997",
        smoke=dict(layer=("gru", dict(hidden=3))),
    ),
    "stacked": Entry(
        Stacked,
        "Layers on top of each other, residual as in GNMT",
        "1609.08144",
        smoke=dict(layers=("elman", ("gru", dict(hidden=3)))),
        variants={
            "residual": dict(layers=("lru", "min_gru"), residual=True),
            "masked": dict(
                layers=(("elman", dict(hidden=2)), ("gru", dict(hidden=3))), dropout=0.5, masks=2
            ),
        },
    ),
    "zoneout": Entry(
        Zoneout,
        "Zoneout over any layer with a step",
        "1606.01305",
        smoke=dict(layer=("lstm", dict(hidden=3)), rate=0.25),
        variants={
            "cell": dict(layer=("lstm", dict(hidden=2)), cell_rate=0.5),
            "masked": dict(layer=("lstm", dict(hidden=1)), cell_rate=0.5, masks=2),
            "linear": dict(layer=("min_gru", dict(expansion=1.5)), rate=0.5),
        },
    ),
}
