"""Residual and highway recurrences."""

from seqjax.layers.residual.e1 import E1
from seqjax.layers.residual.e33 import E33
from seqjax.layers.residual.e42 import E42
from seqjax.layers.residual.e59 import E59
from seqjax.layers.residual.e88 import E88
from seqjax.layers.residual.heterogeneous_residual import HeterogeneousResidual
from seqjax.layers.residual.highway_lstm import HighwayLSTM
from seqjax.layers.residual.highway_rnn import HighwayRNN
from seqjax.layers.residual.highway_state_gating import HighwayStateGating
from seqjax.layers.residual.log_polynomial import LogPolynomial
from seqjax.layers.residual.residual_lstm import ResidualLSTM
from seqjax.layers.residual.residual_rnn import ResidualRNN
from seqjax.layers.residual.residual_stacked_rnn import ResidualStackedRNN
from seqjax.layers.residual.residual_time_gru import ResidualTimeGRU
from seqjax.layers.residual.sctt_rnn import SCTTRNN
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "highway_rnn": Entry(
        HighwayRNN,
        "Recurrent highway network, transition depth n",
        "1607.03474",
        state="out_features + masks",
        smoke=dict(depth=2),
        variants={
            "carry": dict(hidden=3, depth=1, coupled=False),
            "noisy": dict(hidden=3, depth=2, dropout=0.5),
        },
    ),
    "highway_lstm": Entry(
        HighwayLSTM,
        "Highway-LSTM (gated depth connections)",
        "1510.08983, research.google pub46171",
        state="2 * depth * out_features",
        smoke=dict(hidden=3),
        variants={"peepholes": dict(hidden=2, depth=3, peepholes=True)},
    ),
    "highway_state_gating": Entry(
        HighwayStateGating,
        "Highway state gating",
        "1805.09238",
        state="out_features + masks",
        smoke=dict(depth=2),
        variants={"noisy": dict(hidden=3, depth=1, coupled=False, dropout=0.5)},
    ),
    "residual_rnn": Entry(
        ResidualRNN,
        "Residual RNN: the unit learns residual functions of the hidden state",
        "mdpi 2078-2489/9/3/56",
        state="hidden or features",
        variants={"deep": dict(hidden=3, depth=3)},
    ),
    "residual_stacked_rnn": Entry(
        ResidualStackedRNN,
        "x^l_t = m^l_t + x^{l-1}_t",
        "ECCV 2018",
        smoke=dict(layers=("gru", "lstm")),
    ),
    "residual_lstm": Entry(
        ResidualLSTM,
        "Residual LSTM (spatial shortcut from lower layer's output)",
        "1701.03360",
        state="out_features + hidden",
        smoke=dict(hidden=3),
        variants={"projected": dict(hidden=3, projection=2, peepholes=False)},
    ),
    "residual_time_gru": Entry(
        ResidualTimeGRU,
        "Residual-time GRU",
        "S0925231225000682",
        state="hidden or features",
    ),
    "sctt_rnn": Entry(
        SCTTRNN,
        "Skip connections through time",
        "PMC10592728",
        state="skip * out_features",
        smoke=dict(skip=3),
        variants={"plain": dict(hidden=3, skip=1, strength=0.0, activation="tanh")},
    ),
    "e1": Entry(
        E1,
        "Gated Elman: tanh recurrence, output h*silu(gate)",
        "elman project",
        state="hidden + taps",
        variants={"conv": dict(expansion=1.5, conv=3)},
    ),
    "e33": Entry(
        E33,
        "Self-gated Elman: output h*silu(h)",
        "elman project",
        state="hidden + taps",
        variants={"conv": dict(expansion=1.5, conv=3)},
    ),
    "e42": Entry(
        E42,
        "Linear tied self-gated Elman: h = W x + W h + b, output h*silu(h)",
        "elman project",
        state="hidden + taps",
        smoke=dict(recurrent_init="orthogonal", recurrent_scale=0.9),
        variants={
            "conv": dict(expansion=1.5, conv=3, recurrent_init="orthogonal", recurrent_scale=0.9)
        },
    ),
    "e59": Entry(
        E59,
        "E59: residual recurrence, pure, gated (E59b) and mixed (E59c)",
        "elman project",
        state="expansion * features",
        variants={
            "gated": dict(form="gated", expansion=1.5),
            "mixed": dict(form="mixed"),
            "normed": dict(norm=True),
            "gated_normed": dict(form="gated", norm=True, expansion=1.5),
            "mixed_normed": dict(form="mixed", norm=True),
        },
    ),
    "e88": Entry(
        E88,
        "E88: a delta rule with a tanh around its matrix state",
        "elman project",
        state="heads * K * V + taps",
        smoke=dict(heads=2, key_size=2),
        variants={
            "conv": dict(heads=2, key_size=2, value_size=3, conv=3, gate="silu", norm=True),
            "linear": dict(heads=1, linear_state=True, simple_decay=True, gate="sigmoid"),
        },
    ),
    "heterogeneous_residual": Entry(
        HeterogeneousResidual,
        "Residual reservoir/RNN with heterogeneous strengths per unit",
        "2307.14823",
        state="hidden or features",
        variants={"reservoir": dict(hidden=5, r_min=0.5, r_max=0.9, reservoir=True)},
    ),
    "log_polynomial": Entry(
        LogPolynomial,
        "Log-polynomial recurrence",
        "elman-proofs",
        state="hidden",
        variants={"groups": dict(expansion=1.5, groups=2)},
    ),
}
