"""Networks with an external memory."""

from seqjax.layers.memory.dnc import DNC
from seqjax.layers.memory.ntm import NTM
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "ntm": Entry(
        NTM,
        "Neural Turing machine",
        "1410.5401",
        state="cells * (width + read_heads + write_heads) + read_heads * width"
        " + (1 + (controller == 'lstm')) * hidden",
        smoke=dict(cells=3, width=2, hidden=3),
        variants={
            "several": dict(
                cells=4, width=2, heads="wwrrw", shifts=4, hidden=3, memory_init="learned"
            ),
            "feed_forward": dict(
                cells=3,
                width=2,
                heads="wr",
                shifts=1,
                hidden=3,
                controller="feed_forward",
                memory_init="random",
                squashed=True,
            ),
        },
    ),
    "dnc": Entry(
        DNC,
        "Differentiable neural computer",
        "Nature 2016",
        state="cells * (width + 1 + write_heads * (cells + 2) + read_heads) + read_heads * width"
        " + (1 + (controller == 'lstm')) * hidden",
        smoke=dict(cells=3, width=2, read_heads=1, hidden=3),
        variants={
            "several": dict(cells=3, width=2, read_heads=2, write_heads=2, hidden=2),
            "feed_forward": dict(
                cells=3,
                width=2,
                read_heads=1,
                hidden=3,
                controller="feed_forward",
                strengths="softplus",
                squashed=True,
                usage_gradient=False,
                soft_lengths=False,
            ),
        },
    ),
}
