"""Recurrences whose matrix is held to a set."""

from seqjax.layers.constrained.antisymmetric_rnn import AntisymmetricRNN
from seqjax.layers.constrained.incremental_rnn import IncrementalRNN
from seqjax.layers.constrained.limit_cycle_rnn import LimitCycleRNN
from seqjax.layers.constrained.nnrnn import NNRNN
from seqjax.layers.constrained.orthogonal_rnn import OrthogonalRNN
from seqjax.layers.constrained.tarnn import TARNN
from seqjax.layers.constrained.unitary_rnn import UnitaryRNN
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "orthogonal_rnn": Entry(
        OrthogonalRNN,
        "Orthogonal RNN by exponential map / Cayley (expRNN, scoRNN)",
        "1901.08428, 1707.09520",
        state="hidden or features",
        smoke=dict(hidden=3),
        variants={
            "cayley": dict(hidden=4, parametrisation="cayley", negative=1, activation="tanh"),
            "stiefel": dict(hidden=4, parametrisation="stiefel"),
        },
    ),
    "unitary_rnn": Entry(
        UnitaryRNN,
        "Unitary evolution RNN",
        "1511.06464",
        state="2 * (hidden or features)",
        smoke=dict(hidden=3),
    ),
    "nnrnn": Entry(
        NNRNN,
        "Non-normal RNN (Schur form)",
        "1905.12080",
        state="hidden or features",
        smoke=dict(hidden=4),
        variants={"tanh": dict(hidden=2, activation="tanh")},
    ),
    "incremental_rnn": Entry(
        IncrementalRNN,
        "Incremental RNN (iRNN): equilibrium of an implicit step",
        "ICLR 2020 Kag et al.",
        state="hidden or features",
        smoke=dict(hidden=3, substeps=2),
        variants={"equilibrium": dict(hidden=3, substeps=None, alpha=1.5)},
    ),
    "tarnn": Entry(
        TARNN,
        "Time-adaptive RNN",
        "CVPR 2021 Kag & Saligrama",
        state="(hidden or features) + features",
        smoke=dict(hidden=3, length=5, dt=0.5, activation="tanh"),
        variants={"plain": dict(hidden=3, substeps=2, form="plain", dt=0.3)},
    ),
    "limit_cycle_rnn": Entry(
        LimitCycleRNN,
        "Scaled-rotation (limit cycle) initialisation",
        "Park et al. 2023",
        state="hidden or features",
    ),
    "antisymmetric_rnn": Entry(
        AntisymmetricRNN,
        "AntisymmetricRNN",
        "1902.09689",
        state="hidden or features",
        smoke=dict(hidden=3),
        variants={"gated": dict(hidden=3, dt=0.5, gated=True)},
    ),
}
