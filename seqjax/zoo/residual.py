"""Residual and highway recurrences."""

from seqjax.layers.residual.e59 import E59
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
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
}
