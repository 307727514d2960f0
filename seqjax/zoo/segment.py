"""Segment recurrence: networks that read a stretch of the sequence at a time."""

from seqjax.layers.segment.infini_transformer import InfiniTransformer
from seqjax.layers.segment.rmt import RMT
from seqjax.layers.segment.transformer_xl import TransformerXL
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "transformer_xl": Entry(
        TransformerXL,
        "Transformer-XL: segment recurrence, relative positions",
        "1901.02860",
        state="(memory + length - 1) * features",
        smoke=dict(heads=2, length=3, memory=2, feed_forward=5),
        variants={
            "pre_norm": dict(length=2, memory=3, head_size=3, pre_norm=True),
            "detached": dict(length=2, memory=3, feed_forward=0, detach_memory=True),
            "no_memory": dict(length=4, memory=0),
            "same_length": dict(length=2, memory=4, same_length=True, clamp=2),
        },
        exempt={"learned h0 has a gradient": "the memory starts empty: there is nothing to learn"},
    ),
    "rmt": Entry(
        RMT,
        "Recurrent memory Transformer",
        "2207.06881",
        state="(memory + length - 1) * features",
        smoke=dict(heads=2, length=3, memory=2, depth=1),
        variants={"long_segments": dict(length=9, memory=1), "one_step": dict(length=1, memory=3)},
    ),
    "infini_transformer": Entry(
        InfiniTransformer,
        "Infini-attention: compressive memory, linear and delta update",
        "2404.07143",
        state="heads * size * (size + 1) + (length - 1) * 2 * heads * size",
        smoke=dict(heads=2, length=3),
        variants={
            "linear": dict(heads=1, head_size=3, length=2, update="linear"),
            "no_positions": dict(length=4, rotary_fraction=0.5),
        },
        exempt={"learned h0 has a gradient": "the memory starts empty: there is nothing to learn"},
    ),
}
