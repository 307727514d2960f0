"""The classic networks."""

from seqjax.layers.classic.awd_lstm import AWDLSTM
from seqjax.layers.classic.bidirectional import Bidirectional
from seqjax.layers.classic.convlstm import ConvLSTM
from seqjax.layers.classic.elman import Elman
from seqjax.layers.classic.gru import GRU
from seqjax.layers.classic.hopfield import Hopfield
from seqjax.layers.classic.janet import JANET
from seqjax.layers.classic.jordan import Jordan
from seqjax.layers.classic.lstm import LSTM
from seqjax.layers.classic.lstm_1997 import LSTM1997
from seqjax.layers.classic.lstmp import LSTMP
from seqjax.layers.classic.md_lstm import MDLSTM
from seqjax.layers.classic.mgu import MGU
from seqjax.layers.classic.mogrifier_lstm import MogrifierLSTM
from seqjax.layers.classic.on_lstm import ONLSTM
from seqjax.layers.classic.stacked import Stacked
from seqjax.layers.classic.zoneout import Zoneout
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "hopfield": Entry(
        Hopfield,
        "Hopfield network: symmetric weights, asynchronous/synchronous relaxation, "
        "stored-pattern recall",
        "Hopfield 1982",
        state="hidden or features",
        variants={
            "sign": dict(hidden=3, form="sign"),
            "asynchronous": dict(hidden=3, asynchronous=True, beta=2.0),
            "modern": dict(hidden=3, patterns=5, form="modern"),
        },
    ),
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
    "jordan": Entry(
        Jordan,
        "Jordan network: previous output fed back to the hidden layer",
        "Jordan 1986",
        state="parts_of_state * out_features",
        variants={"trace": dict(hidden=3, outputs=2, output_activation="sigmoid", trace=0.5)},
    ),
    "lstm": Entry(
        LSTM,
        "LSTM with forget gate",
        "Gers et al. 2000",
        state="out_features + hidden + gated",
        smoke=dict(hidden=3),
        variants={
            "peepholes": dict(hidden=3, peepholes=True),
            "norm": dict(hidden=3, norm=True, chrono=9.0),
            "projected": dict(hidden=5, projection=3, coupled=True, cell_clip=0.5),
            "full": dict(hidden=2, full_recurrence=True, peepholes=True, input_activation="linear"),
            "capped": dict(hidden=5, projection=2, non_recurrent=1, cap_input_gate=True),
            "heads": dict(hidden=4, heads=2, peepholes=True),
            "units": dict(hidden=3, heads=3, coupled=True),
        },
    ),
    "lstm_1997": Entry(
        LSTM1997,
        "LSTM without forget gate (constant error carousel)",
        "Hochreiter & Schmidhuber 1997",
        state="out_features + hidden + gated",
        smoke=dict(hidden=3),
        variants={
            "tanh": dict(hidden=3, squash="tanh", gate_bias=-1.0),
            "full": dict(hidden=2, full_recurrence=True),
        },
    ),
    "lstmp": Entry(
        LSTMP,
        "LSTM with recurrent projection",
        "1402.1128",
        state="out_features + hidden",
        smoke=dict(hidden=4),
        variants={
            "both": dict(hidden=5, projection=2, non_recurrent=1, cell_clip=0.5),
            "plain": dict(hidden=3, peepholes=False, bias=False),
        },
    ),
    "janet": Entry(
        JANET,
        "JANET: LSTM with the forget gate alone",
        "1804.04849",
        state="hidden or features",
        variants={"chrono": dict(hidden=3, beta=0.0, chrono=9.0)},
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
            "heads": dict(hidden=4, heads=2),
            "units": dict(hidden=3, heads=3, reset="after"),
        },
    ),
    "mgu": Entry(
        MGU,
        "Minimal gated unit",
        "1603.09420",
        state="hidden or features",
        variants={"chrono": dict(hidden=3, chrono=9.0), "unbiased": dict(bias=False)},
    ),
    "mogrifier_lstm": Entry(
        MogrifierLSTM,
        "Mogrifier LSTM",
        "1909.01792",
        state="out_features + hidden",
        smoke=dict(hidden=3),
        variants={
            "low_rank": dict(hidden=3, rounds=2, rank=2, cap_input_gate=False),
            "coupled": dict(hidden=3, rounds=1, coupled=True),
        },
    ),
    "awd_lstm": Entry(
        AWDLSTM,
        "AWD-LSTM recipe: weight-dropped recurrent matrix",
        "1708.02182",
        state="out_features + hidden",
        smoke=dict(hidden=3),
        variants={"rows": dict(hidden=3, weight_drop=0.25, by_rows=True, dropout=0.5)},
    ),
    "on_lstm": Entry(
        ONLSTM,
        "Ordered-neurons LSTM (cumax master gates)",
        "1810.09536",
        state="2 * out_features",
        variants={"chunks": dict(hidden=6, chunk=2)},
    ),
    "convlstm": Entry(
        ConvLSTM,
        "ConvLSTM: convolutions inside the cell (spatial state)",
        "1506.04214",
        state="2 * out_features",
        smoke=dict(shape=(2, 2)),
        variants={
            "line": dict(shape=(4,), channels=2, peepholes=False, bias=False),
            "volume": dict(shape=(1, 2, 2), kernel_size=(1, 3, 1)),
        },
    ),
    "md_lstm": Entry(
        MDLSTM,
        "Multi-dimensional LSTM (2-d recurrence)",
        "Graves 2007",
        state="2 * out_features",
        smoke=dict(columns=2),
        variants={"mirrored": dict(hidden=2, peepholes=True, mirrored=True)},
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
