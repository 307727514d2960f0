"""Reservoirs: recurrences that are not trained."""

from seqjax.layers.reservoir.deep_esn import DeepESN
from seqjax.layers.reservoir.deep_residual_esn import DeepResidualESN
from seqjax.layers.reservoir.es2n import ES2N
from seqjax.layers.reservoir.esn import ESN
from seqjax.layers.reservoir.liquid_state_machine import LiquidStateMachine
from seqjax.layers.reservoir.nvar import NVAR
from seqjax.layers.reservoir.residual_esn import ResidualESN
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "esn": Entry(
        ESN,
        "Leaky echo state network, weights not trained",
        "Jaeger 2001",
        state="hidden or features",
        smoke=dict(hidden=6, density=0.5, leak=0.5),
        variants={
            "leaks": dict(
                hidden=3,
                density=1.0,
                input_density=0.7,
                leak=(0.1, 0.5, 1.0),
                bias_scale=0.2,
                activation="sigmoid",
            ),
            "plastic": dict(
                hidden=3, density=1.0, law="normal", leak=0.5, feedback=1, plastic=True
            ),
        },
    ),
    "residual_esn": Entry(
        ResidualESN,
        "Residual echo state network",
        "S0925231224007379",
        state="hidden or features",
        smoke=dict(hidden=6, alpha=0.8, beta=0.3),
        variants={
            "cyclic": dict(hidden=3, skip="cyclic", input_law="bernoulli", bias_scale=0.2),
            "identity": dict(hidden=3, skip="identity", beta=(0.1, 0.2, 0.3), feedback=2),
        },
    ),
    "deep_residual_esn": Entry(
        DeepResidualESN,
        "Deep residual echo state network",
        "2508.21172",
        state="out_features",
        smoke=dict(units=(4, 3), alpha=0.8, beta=(0.5, 0.3)),
        variants={"cyclic": dict(units=(3,), skip="cyclic", bias_scale=0.2)},
    ),
    "liquid_state_machine": Entry(
        LiquidStateMachine,
        "Liquid state machine (spiking reservoir)",
        "Maass et al. 2002",
        state="4 * (hidden or features)",
        smoke=dict(hidden=6),
        variants={
            "delayed": dict(
                hidden=4, reset="subtract", delayed=True, synapse=0.0, refractory=0.0, coding="rate"
            ),
            "potential": dict(hidden=4, reads="potential", surrogate="atan", input_scale=40.0),
        },
    ),
    "deep_esn": Entry(
        DeepESN,
        "Deep echo state network",
        "Gallicchio 2017",
        state="out_features",
        smoke=dict(units=(4, 3), density=0.5, leak=(0.5, 0.3)),
        variants={"one": dict(units=(3,), density=1.0, bias_scale=0.2, activation="relu")},
    ),
    "es2n": Entry(
        ES2N,
        "Edge-of-stability echo state network",
        "2308.02902",
        state="hidden or features",
        smoke=dict(hidden=6, beta=0.2),
        variants={"betas": dict(hidden=3, beta=(0.1, 0.5, 1.0), bias_scale=0.2)},
    ),
    "nvar": Entry(
        NVAR,
        "Next-generation reservoir: nonlinear vector autoregression",
        "2106.07688",
        state="(delay - 1) * stride * features",
        variants={"third": dict(delay=3, order=3, stride=2, constant=False)},
    ),
}
