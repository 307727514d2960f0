"""Fast weights: delta rules and inner learners."""

from seqjax.layers.fast_weights.comba import Comba
from seqjax.layers.fast_weights.deltaformer import DeltaFormer
from seqjax.layers.fast_weights.deltanet import DeltaNet
from seqjax.layers.fast_weights.deltaproduct import DeltaProduct
from seqjax.layers.fast_weights.fwp import FWP
from seqjax.layers.fast_weights.gated_deltanet import GatedDeltaNet
from seqjax.layers.fast_weights.gdn2 import GDN2
from seqjax.layers.fast_weights.iplr import IPLR
from seqjax.layers.fast_weights.kda import KDA
from seqjax.layers.fast_weights.longhorn import Longhorn
from seqjax.layers.fast_weights.mesa_net import MesaNet
from seqjax.layers.fast_weights.mom import MoM
from seqjax.layers.fast_weights.negative_eigenvalues import NegativeEigenvalues
from seqjax.layers.fast_weights.neural_ode_fwp import NeuralODEFWP
from seqjax.layers.fast_weights.recurrent_deltanet import RecurrentDeltaNet
from seqjax.layers.fast_weights.srwm import SRWM
from seqjax.layers.fast_weights.titans import Titans
from seqjax.layers.fast_weights.ttt import TTTMLP, TTTLinear
from seqjax.layers.rwkv.rwkv7 import RWKV7
from seqjax.zoo.entry import Entry

# floats of a DeltaLayer: the window of its convolution, and S
DELTA = "((conv or 1) - 1) * (2 * key_heads * K + heads * V) + heads * K * V"

ROWS: dict[str, Entry] = {
    "fwp": Entry(
        FWP,
        "Fast weight programmer: sum or delta update of DPFP features",
        "2102.11174",
        state="heads * size * (V + sums)",
        smoke=dict(heads=2),
        variants={
            "delta": dict(heads=2, update="delta", order="pre", eigenvalues="[-1,1]"),
            "fwm": dict(heads=1, update="fwm", feature_map=("dpfp", {"nu": 2}), order="pre"),
            "divided": dict(heads=2, update="delta", normalise="update", order="pre_released"),
        },
    ),
    "deltanet": Entry(
        DeltaNet,
        "DeltaNet",
        "2406.06484",
        state=DELTA,
        smoke=dict(heads=2, key_size=3, value_size=2, conv=2),
        variants={
            "negative": dict(heads=1, eigenvalues="[-1,1]", output_gate=True),
            "shared": dict(heads=2, key_heads=1, conv=2),
            "bare": dict(heads=2, beta=False, qk_map="elu+1", qk_norm="sum", conv=0),
        },
    ),
    "gated_deltanet": Entry(
        GatedDeltaNet,
        "Gated DeltaNet",
        "2412.06464",
        state=DELTA,
        smoke=dict(heads=2, key_size=3, value_size=2, conv=2),
        variants={"negative": dict(heads=1, eigenvalues="[-1,1]")},
    ),
    "deltaproduct": Entry(
        DeltaProduct,
        "DeltaProduct: n_h Householder steps per token",
        "2502.10297",
        state="((conv or 1) - 1) * ((1 + n_h) * key_heads * K + n_h * heads * V) + heads * K * V",
        smoke=dict(n_h=2, heads=2, key_size=3, value_size=2, conv=2),
        variants={"ungated": dict(n_h=3, heads=1, gated=False, eigenvalues="[0,1]")},
    ),
    "recurrent_deltanet": Entry(
        RecurrentDeltaNet,
        "Recurrent Delta Network: the answer feeds back into the slow weights",
        "2106.06295",
        state="heads * D * (D + 1)",
        smoke=dict(heads=2),
        variants={"negative": dict(heads=1, head_size=3, eigenvalues="[-1,1]", order="pre")},
    ),
    "srwm": Entry(
        SRWM,
        "Self-referential weight matrix",
        "2202.05780",
        state="heads * D * (3 * D + 4)",
        smoke=dict(heads=2),
        variants={"pre": dict(heads=1, order="pre")},
    ),
    "kda": Entry(
        KDA,
        "Kimi Delta Attention: the delta rule with a decay per key",
        "2510.26692",
        state=DELTA,
        smoke=dict(heads=2, key_size=3, value_size=2, conv=2),
        variants={
            "negative": dict(heads=1, eigenvalues="[-1,1]"),
            "bounded": dict(heads=2, key_heads=1, conv=2, lower_bound=-5.0, full_rank=True),
        },
    ),
    "comba": Entry(
        Comba,
        "Comba: closed-loop delta rule",
        "2506.02475",
        state=DELTA,
        smoke=dict(heads=2, key_size=3, value_size=2, conv=2),
        variants={
            "open": dict(heads=2, key_heads=1, d=None, state_feedback=False),
            "released": dict(heads=2, key_heads=1, key_size=3, value_size=2, released=True),
        },
    ),
    "gdn2": Entry(
        GDN2,
        "Gated DeltaNet-2: erase and write gated apart",
        "2605.22791",
        state=DELTA,
        smoke=dict(heads=2, key_size=3, value_size=2, conv=2),
        variants={"negative": dict(heads=1, eigenvalues="[-1,1]")},
    ),
    "longhorn": Entry(
        Longhorn,
        "Longhorn: implicit online regression",
        "2407.14207",
        state="expand * features * (conv - 1 + state)",
        smoke=dict(state=2, conv=2, expand=1),
    ),
    "mesa_net": Entry(
        MesaNet,
        "MesaNet: locally optimal test-time regression",
        "2506.05233",
        state="(conv - 1) * 2 * heads * K + heads * K * (K + V)",
        smoke=dict(heads=2, key_size=3, value_size=2, conv=2),
        variants={"gated": dict(heads=1, key_size=2, conv=1, output_gate=True)},
    ),
    "rwkv7": Entry(
        RWKV7,
        "RWKV-7 Goose: generalised delta rule",
        "2503.14456",
        state="heads * K * K + features + (features if block else 0)",
        smoke=dict(heads=2, ranks=(2, 2, 2, 2)),
        variants={"block": dict(heads=1, ranks=(2, 2, 2, 2), depth=0.5, block=True, inner=5)},
    ),
    "ttt_linear": Entry(
        TTTLinear,
        "TTT-Linear: the state is a linear model, trained at test time",
        "2407.04620",
        state="2 * heads * (D + inner_bias) * D",
        smoke=dict(heads=2, mini_batch=3),
        variants={"unbiased": dict(heads=2, mini_batch=1, bias=False)},
    ),
    "ttt_mlp": Entry(
        TTTMLP,
        "TTT-MLP: the state is an MLP, trained at test time",
        "2407.04620",
        state="2 * heads * ((D + inner_bias) * 4 * D + (4 * D + inner_bias) * D)",
        smoke=dict(heads=2, mini_batch=3),
    ),
    "titans": Entry(
        Titans,
        "Titans: attention beside a memory that learns at test time",
        "2501.00663",
        state="3 * features * (conv - 1) + (2 + momentum) * weights + decay * heads + attended",
        smoke=dict(heads=2, size=3, hidden=(), conv=2, window=3, persistent=2),
        variants={
            "layer": dict(placement="layer", heads=1, size=4, hidden=(), conv=2, window=2),
            "context": dict(placement="context", heads=2, size=4, hidden=(), conv=2),
            "memory": dict(placement="memory", heads=2, size=3, hidden=(3,), conv=2),
            "gradient": dict(heads=1, size=3, hidden=(), conv=2, momentum=False, decay=False),
            "momentum": dict(placement="memory", heads=1, size=3, hidden=(), conv=2, decay=False),
        },
    ),
    "negative_eigenvalues": Entry(
        NegativeEigenvalues,
        "Eigenvalues in [-1, 1] for any diagonal, Mamba or delta layer",
        "2411.12537",
        smoke=dict(layer=("mamba", dict(state=3, conv=3, dt_rank=2))),
        variants={"delta": dict(layer=("deltanet", dict(heads=1)))},
    ),
    "neural_ode_fwp": Entry(
        NeuralODEFWP,
        "Continuous-time fast weight programmer: learning rules as differential equations",
        "2206.01649",
        state="heads * D * D + features",
        smoke=dict(heads=2),
        variants={
            "hebb": dict(heads=1, hidden=3, rule="hebb", control="cde", solver="euler"),
            "oja": dict(heads=2, rule="oja", control="cde", solver="midpoint", substeps=2),
            "delta": dict(heads=2, control="cde"),
        },
    ),
    "iplr": Entry(
        IPLR,
        "Generalised delta rule, identity plus low rank",
        "2412.06464, fla",
        state="((conv or 1) - 1) * heads * (2 * K + V) + heads * K * V",
        smoke=dict(heads=2, key_size=3, value_size=2, conv=2),
        variants={
            "rates": dict(heads=2, key_size=2, rates=True, output_gate=True, conv=0),
            "negative": dict(heads=1, key_size=3, conv=0, eigenvalues="[-1,1]"),
        },
    ),
    "mom": Entry(
        MoM,
        "Mixture of memories",
        "2502.13685",
        state="held * heads * (((conv or 1) - 1) * (2 * K + V) + K * V)",
        smoke=dict(heads=2, key_size=2, value_size=3, memories=3, conv=2),
        variants={
            "shared": dict(
                heads=1, key_size=3, memories=2, top=1, shared_memory=True, output_gate=False
            ),
            "one": dict(heads=2, key_size=2, memories=3, top=3, one_projection=True, conv=0),
        },
    ),
    "deltaformer": Entry(
        DeltaFormer,
        "DeltaFormer",
        "2505.19488",
        state="2 * (window - 1) * features",
        smoke=dict(heads=2, window=4),
        variants={
            "normed": dict(heads=1, window=3, qk_norm=True, bias=True),
            "plain": dict(heads=2, window=9, beta=False, rotary_fraction=0.0),
        },
        exempt={"finite at extremes": "beta is linear in x, as released: beyond 2 values grow"},
    ),
}
