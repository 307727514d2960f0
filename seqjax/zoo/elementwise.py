"""Elementwise recurrences: gates that act on each channel alone."""

from seqjax.layers.elementwise.chrono_lstm import ChronoLSTM
from seqjax.layers.elementwise.elstm import ELSTM
from seqjax.layers.elementwise.gilr_lstm import GILRLSTM
from seqjax.layers.elementwise.hgru import HGRN
from seqjax.layers.elementwise.indrnn import IndRNN
from seqjax.layers.elementwise.min_gru import MinGRU
from seqjax.layers.elementwise.min_lstm import MinLSTM
from seqjax.layers.elementwise.qrnn import QRNN
from seqjax.layers.elementwise.slstm import SLSTM
from seqjax.layers.elementwise.sru import SRU
from seqjax.layers.elementwise.sru_pp import SRUpp
from seqjax.layers.elementwise.tcn import TCN
from seqjax.layers.elementwise.ur_lstm import URLSTM
from seqjax.layers.elementwise.xlstm import XLSTM
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "indrnn": Entry(
        IndRNN,
        "Independently recurrent network",
        "1803.04831",
        state="hidden or features",
        variants={
            "tanh": dict(hidden=3, activation="tanh", norm=True),
            "linear": dict(activation="linear"),
        },
    ),
    "min_gru": Entry(
        MinGRU,
        "minGRU",
        "2410.01201",
        state="expansion * features",
        variants={
            "expanded": dict(expansion=1.5, candidate="linear"),
            "negative": dict(eigenvalues="[-1,1]"),
        },
    ),
    "min_lstm": Entry(
        MinLSTM,
        "minLSTM: normalised gates",
        "2410.01201",
        state="expansion * features",
        variants={
            "expanded": dict(expansion=1.5, candidate="linear"),
            "negative": dict(eigenvalues="[-1,1]"),
        },
    ),
    "qrnn": Entry(
        QRNN,
        "Quasi-recurrent network: f-, fo- and ifo-pooling, convolution of any width",
        "1611.01576",
        state="(hidden or features) + (window - 1) * (features - masks)",
        smoke=dict(hidden=3),
        variants={
            "f": dict(pooling="f", window=1),
            "ifo": dict(hidden=3, pooling="ifo", window=3, zoneout=0.2),
            "masked": dict(hidden=2, zoneout=0.5, masks=2),
            "negative": dict(hidden=3, eigenvalues="[-1,1]"),
        },
    ),
    "slstm": Entry(
        SLSTM,
        "sLSTM: exponential gates, normaliser, stabiliser",
        "2405.04517",
        state="4 * (hidden or features)",
        smoke=dict(heads=2),
        variants={"exp": dict(hidden=3, forget="exp"), "unmixed": dict(heads=2, mixing=False)},
    ),
    "sru": Entry(
        SRU,
        "Simple recurrent unit",
        "1709.02755",
        state="out_features",
        variants={
            "projected": dict(hidden=3, activation="tanh", norm=True, rank=2),
            "no_highway": dict(hidden=3, highway=False, highway_bias=-1.0),
            "norm_after": dict(rescale=False, norm=True, normalize_after=True),
            "negative": dict(eigenvalues="[-1,1]"),
        },
    ),
    "sru_pp": Entry(
        SRUpp,
        "SRU++: SRU with attention in place of its projection",
        "2102.12459",
        state="2 * (window - 1) * attention + out_features",
        smoke=dict(attention=2, window=3),
        variants={"projected": dict(hidden=3, attention=2, window=4)},
    ),
    "gilr_lstm": Entry(
        GILRLSTM,
        "GILR-LSTM: gates that see a linear surrogate of the state",
        "1709.04057",
        state="2 * out_features",
        smoke=dict(hidden=3),
        variants={"negative": dict(hidden=3, eigenvalues="[-1,1]")},
    ),
    "ur_lstm": Entry(
        URLSTM,
        "UR-LSTM: refine gate and uniform gate initialisation",
        "1910.09890",
        state="2 * out_features",
        smoke=dict(hidden=3),
        variants={"uniform": dict(hidden=3, refine=False)},
    ),
    "chrono_lstm": Entry(
        ChronoLSTM,
        "LSTM with chrono initialisation",
        "1804.11188",
        state="2 * out_features",
        smoke=dict(hidden=3, longest=8.0),
    ),
    "xlstm": Entry(
        XLSTM,
        "xLSTM[a:b] block stack of mLSTM (pre-up) and sLSTM (post-up)",
        "2405.04517",
        state=(
            "mlstms * ((conv - 1) * inner + heads * (K * K + K + 1))"
            " + slstms * (conv - 1 + 4) * features"
        ),
        smoke=dict(pattern=("mlstm", "slstm"), heads=2, conv=2, expand=1, expansion=1.0),
        variants={"mlstm": dict(pattern=("mlstm",), heads=1, conv=3, expand=2, block=2)},
    ),
    "hgru": Entry(
        HGRN,
        "HGRU / HGRN: complex forget gate with layer-wise cumax lower bound",
        "2311.04823",
        state="depth * features * (2 if complex_gate else 1)",
        variants={
            "real": dict(depth=3, complex_gate=False, expansion=0),
            "negative": dict(depth=2, complex_gate=False, expansion=0, eigenvalues="[-1,1]"),
        },
    ),
    "elstm": Entry(
        ELSTM,
        "Element-wise LSTM: gates see w*c",
        "2305.19044",
        state="out_features",
        smoke=dict(hidden=3),
    ),
    "tcn": Entry(
        TCN,
        "Temporal convolutional network: the convolutional baseline",
        "1803.01271",
        state="held",
        smoke=dict(channels=(3, 4)),
        variants={"wide": dict(channels=(4,), width=3, dropout=0.3, normed=False)},
    ),
}
