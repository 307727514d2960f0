"""Reservoirs: recurrences that are not trained."""

from seqjax.layers.reservoir.esn import ESN
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
            )
        },
    ),
}
