"""Hybrids: recurrences and attention in one stack."""

from seqjax.layers.entry import Entry
from seqjax.layers.hybrid.zamba import Zamba

ROWS: dict[str, Entry] = {
    "zamba": Entry(
        Zamba,
        "Zamba: Mamba blocks and one shared attention",
        "2405.16712",
        state="depth * expand * features * (state + conv - 1) + uses * 4 * (window - 1) * features",
        smoke=dict(depth=2, every=2, heads=2, window=3, expansion=1.0, state=2, conv=2, expand=1),
        variants={
            "often": dict(
                depth=2,
                every=1,
                heads=2,
                window=2,
                rotary_fraction=1.0,
                expansion=1.0,
                state=2,
                conv=2,
                expand=1,
            ),
        },
    ),
}
