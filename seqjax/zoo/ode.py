"""Steps of differential equations."""

from seqjax.layers.ode.cfc import CfC
from seqjax.layers.ode.cornn import CoRNN
from seqjax.layers.ode.ct_rnn import CTRNN
from seqjax.layers.ode.koopman_ae import KoopmanAE
from seqjax.layers.ode.lem import LEM
from seqjax.layers.ode.lipschitz_rnn import LipschitzRNN
from seqjax.layers.ode.ltc import LTC
from seqjax.layers.ode.neural_cde import NeuralCDE
from seqjax.layers.ode.neural_ode import NeuralODE
from seqjax.layers.ode.noisy_rnn import NoisyRNN
from seqjax.layers.ode.nwm import NeuralWaveMachine
from seqjax.layers.ode.ode_rnn import ODERNN
from seqjax.layers.ode.plrnn import PLRNN
from seqjax.layers.ode.unicornn import UnICORNN
from seqjax.layers.ode.wave_rnn import WaveRNN
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "ct_rnn": Entry(
        CTRNN,
        "Continuous-time / leaky RNN x' = -x + f(Ax + Bu)",
        "survey eq. 3",
        state="hidden or features",
        smoke=dict(hidden=3),
        variants={
            "exact": dict(hidden=3, activation="linear", solver="exact"),
            "leaky": dict(hidden=3, tau=None, solver="euler", substeps=3),
        },
    ),
    "neural_ode": Entry(
        NeuralODE,
        "Neural ODE sequence model",
        "1806.07366",
        state="hidden or features",
        smoke=dict(hidden=3),
        variants={
            "adaptive": dict(hidden=3, solver="dopri5", tolerance=1e-4),
            "adjoint": dict(hidden=3, solver="tsit5", tolerance=1e-4, adjoint="backsolve"),
        },
    ),
    "neural_cde": Entry(
        NeuralCDE,
        "Neural controlled differential equation",
        "2005.08926",
        state="(hidden or features) + 2 * features",
        smoke=dict(hidden=3),
        variants={
            "linear": dict(hidden=3, path="linear", width=5, substeps=2),
            "rectilinear": dict(hidden=3, path="rectilinear", time=False, solver="midpoint"),
        },
    ),
    "ode_rnn": Entry(
        ODERNN,
        "ODE-RNN (irregular times)",
        "1907.03907",
        state="hidden or features",
        smoke=dict(hidden=3),
        variants={"midpoint": dict(hidden=3, width=5, solver="midpoint", substeps=2)},
    ),
    "ltc": Entry(
        LTC,
        "Liquid time-constant network (fused solver)",
        "2006.04439",
        state="(1 + mixed_memory) * (hidden or features)",
        smoke=dict(hidden=3),
        variants={
            "sparse": dict(hidden=5, outputs=2, density=0.5, input_mapping="linear", unfolds=2),
            "free": dict(hidden=3, implicit=False, output_mapping="none"),
            "mixed": dict(hidden=3, outputs=2, mixed_memory=True),
        },
    ),
    "cfc": Entry(
        CfC,
        "Closed-form continuous-time network",
        "2106.13898",
        state="(1 + mixed_memory) * (hidden or features)",
        smoke=dict(hidden=3, units=5),
        variants={
            "pure": dict(hidden=3, mode="pure", units=5, activation="silu"),
            "mixed": dict(hidden=3, mode="no_gate", units=5, depth=2, mixed_memory=True),
            "heads": dict(hidden=3, depth=0),
        },
    ),
    "lipschitz_rnn": Entry(
        LipschitzRNN,
        "Lipschitz RNN",
        "2006.12070",
        state="hidden or features",
        smoke=dict(hidden=3, dt=0.5, gamma_A=0.6, gamma_W=0.1),
        variants={
            "gated": dict(hidden=3, dt=0.5, gamma_A=0.6, gated=True, solver="midpoint"),
            "residual": dict(hidden=3, dt=0.5, form="residual"),
        },
    ),
    "cornn": Entry(
        CoRNN,
        "coRNN",
        "2010.00951",
        state="2 * (hidden or features)",
        smoke=dict(hidden=3, dt=0.5, gamma=1.0, epsilon=0.5),
        variants={"implicit": dict(hidden=3, damping="implicit")},
    ),
    "unicornn": Entry(
        UnICORNN,
        "UnICORNN",
        "2103.05487",
        state="2 * (hidden or features)",
        smoke=dict(hidden=3, dt=1.0),
    ),
    "nwm": Entry(
        NeuralWaveMachine,
        "Neural wave machine",
        "ICML 2023 Keller & Welling",
        state="2 * sites**2",
        smoke=dict(sites=3, dt=0.5, gamma=1.0, epsilon=0.5),
        variants={"implicit": dict(sites=4, damping="implicit")},
    ),
    "wave_rnn": Entry(
        WaveRNN,
        "Wave-RNN",
        "2309.08045",
        state="channels * (sites or features)",
        smoke=dict(sites=3, channels=2, activation="tanh"),
        variants={
            "relu": dict(sites=4),
            "uniform": dict(
                sites=6, kernel_size=5, activation="tanh", init="uniform", encoder="all"
            ),
        },
    ),
    "noisy_rnn": Entry(
        NoisyRNN,
        "NoisyRNN",
        "2102.04877",
        state="hidden or features",
        smoke=dict(hidden=3, dt=0.5, gamma_A=0.6, gamma_W=0.1),
        variants={"given": dict(hidden=3, dt=0.5, gamma_A=0.6, learned_dt=False)},
    ),
    "lem": Entry(
        LEM,
        "Long expressive memory",
        "2110.04744",
        state="2 * (hidden or features)",
        smoke=dict(hidden=3),
    ),
    "plrnn": Entry(
        PLRNN,
        "Piecewise-linear RNN, shallow and dendritic",
        "2306.04406, 2310.17561",
        state="hidden or features",
        smoke=dict(hidden=3, width=5),
        variants={
            "vanilla": dict(hidden=3, form="vanilla", clip=10.0, centred=True),
            "dendritic": dict(hidden=3, form="dendritic", bases=2, clip=10.0),
            "clipped": dict(hidden=3, form="clipped", bases=2),
            "shallow": dict(hidden=5, form="shallow", width=3, forcing=0.25),
        },
    ),
    "koopman_ae": Entry(
        KoopmanAE,
        "Consistent Koopman autoencoder",
        "2003.02236",
        state="(hidden or features) + 1",
        smoke=dict(hidden=3, width=5),
        variants={"first": dict(hidden=3, width=5, forcing=0.0), "each": dict(forcing=1.0)},
        exempt={
            "learned h0 has a gradient": "the first frame is the start",
            "parameters have gradients": "D moves backwards: only the losses see it",
        },
    ),
}
