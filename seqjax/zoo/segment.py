"""Segment recurrence: networks that read a stretch of the sequence at a time."""

from seqjax.layers.segment.armt import ARMT
from seqjax.layers.segment.arn import RecurrenceEncoder
from seqjax.layers.segment.block_recurrent import BlockRecurrent
from seqjax.layers.segment.block_state import BlockState
from seqjax.layers.segment.compressive_transformer import CompressiveTransformer
from seqjax.layers.segment.infini_transformer import InfiniTransformer
from seqjax.layers.segment.memformer import Memformer
from seqjax.layers.segment.r_transformer import RTransformer
from seqjax.layers.segment.ran import RAN
from seqjax.layers.segment.rmt import RMT
from seqjax.layers.segment.rpe_rnn import RecurrentPositions
from seqjax.layers.segment.rsa import RSA
from seqjax.layers.segment.tlb import TLB
from seqjax.layers.segment.token_turing_machine import TokenTuringMachine
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
    "armt": Entry(
        ARMT,
        "Associative recurrent memory Transformer",
        "2407.04841",
        state="depth * (features + 1) * keys + (length - 1) * features",
        smoke=dict(heads=2, length=3, memory=2, size=2, depth=1),
        variants={"deep": dict(length=2, memory=1, size=3, nu=1, depth=2)},
        exempt={"learned h0 has a gradient": "nothing is known at first"},
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
    "r_transformer": Entry(
        RTransformer,
        "R-Transformer: local RNN + attention",
        "1907.05572",
        state="local_layers * (width - 1) * features + 2 * (window - 1) * features",
        smoke=dict(width=3, heads=2, window=4, expansion=1.0),
        variants={
            "two": dict(cell="rnn", width=2, local_layers=2, heads=1, window=5, expansion=1.0),
            "lstm": dict(cell="lstm", width=2, heads=2, window=3, expansion=0.5),
        },
    ),
    "rpe_rnn": Entry(
        RecurrentPositions,
        "Recurrent positional embedding",
        "EMNLP 2019 D19-1139",
        state="held + 2 * (window - 1) * features",
        smoke=dict(heads=1, rpe_heads=2, window=4),
        variants={
            "parts": dict(form="parts", cell="lstm", rpe_size=1, heads=2, window=3),
            "gru": dict(cell="gru", rpe_size=3, heads=1, rpe_heads=1, window=2),
        },
    ),
    "rsa": Entry(
        RSA,
        "Self-attention with recurrence: regular and cyclical REM",
        "Encoding recurrence into Transformers, ICLR 2023",
        state="2 * (window - 1) * heads * K + 2 * encoded * K",
        smoke=dict(heads=4, window=3),
        variants={
            "regular": dict(heads=3, regular=2, cosine=0, sine=0, head_size=2, window=4),
            "cyclical": dict(heads=2, regular=0, window=2, positions="none"),
        },
    ),
    "memformer": Entry(
        Memformer,
        "Memformer",
        "2010.06891",
        state="(slots + length - 1) * features",
        smoke=dict(length=3, slots=2, heads=2, expansion=1.0),
        variants={
            "gru": dict(
                length=4, slots=2, depth=2, heads=1, update="gru", updates=2, expansion=0.5
            ),
            "encoder": dict(length=4, slots=2, heads=2, causal=False, temperature=0.5),
            "released": dict(
                length=5, slots=2, heads=2, update="gru", causal=False, released=True, expansion=1.0
            ),
        },
    ),
    "block_state": Entry(
        BlockState,
        "Block-state Transformer",
        "2306.09539",
        state=(
            "filters * features * (state + length - 1) + 2 * (length - 1) * features"
            " + filters * features"
        ),
        smoke=dict(length=3, heads=2, filters=2, state=2),
        variants={
            "single": dict(form="single", length=4, heads=2, state=2),
            "multi": dict(form="multi", length=2, heads=2, state=2),
        },
    ),
    "arn": Entry(
        RecurrenceEncoder,
        "Attentive recurrent network / recurrence encoder beside a Transformer encoder",
        "1904.03092",
        state="0",
        smoke=dict(heads=2, expansion=0.5),
        variants={
            "stack": dict(heads=1, fusion="stack", short_cut=False, expansion=0.5),
            "birnn": dict(recurrence="birnn", heads=2, depth=2, expansion=0.5),
        },
    ),
    "ran": Entry(
        RAN,
        "Recurrent attention network (global perception cell, memory review)",
        "Recurrent attention networks for long-text modeling, ACL Findings 2023",
        state="(length + 1) * features",
        smoke=dict(length=3, heads=2),
        variants={
            "review": dict(length=4, heads=1, causal=False, review=True),
            "encoder": dict(length=3, heads=2, causal=False),
        },
    ),
    "block_recurrent": Entry(
        BlockRecurrent,
        "Block-recurrent Transformer",
        "2203.07852",
        state="slots * features + (2 * length - 1) * 2 * kv_heads * size",
        smoke=dict(heads=2, length=3, slots=2),
        variants={
            "lstm": dict(heads=2, kv_heads=1, length=2, slots=3, gate="lstm", form="single"),
            "dual": dict(heads=1, head_size=3, length=4, slots=2, form="dual", expansion=2),
            "whole_blocks": dict(heads=1, length=2, slots=2, gate="lstm", same_length=False),
        },
        exempt={"learned h0 has a gradient": "the first state is a parameter already"},
    ),
    "compressive_transformer": Entry(
        CompressiveTransformer,
        "Compressive Transformer",
        "1911.05507",
        state="(compressed + memory + length - 1) * features",
        smoke=dict(heads=2, length=2, memory=2, compressed=2, ratio=2),
        variants={
            "mean": dict(heads=1, length=3, memory=2, compressed=3, ratio=2, compression="mean"),
            "max": dict(heads=1, length=2, memory=3, compressed=2, ratio=2, compression="max"),
            "most_used": dict(
                heads=2, length=3, memory=3, compressed=2, ratio=2, compression="most_used"
            ),
            "dilated": dict(
                heads=1, length=4, memory=1, compressed=2, ratio=3, compression="dilated"
            ),
            "detached": dict(
                heads=2,
                head_size=3,
                length=3,
                memory=1,
                compressed=2,
                ratio=2,
                positions="table",
                out_bias=True,
                detach_memory=True,
            ),
        },
        exempt={"learned h0 has a gradient": "the memory starts empty: there is nothing to learn"},
    ),
    "tlb": Entry(
        TLB,
        "Temporal latent bottleneck",
        "2205.14794",
        state="(slots + length - 1) * features",
        smoke=dict(heads=2, length=3, slots=2),
        variants={
            "deep": dict(heads=1, length=4, slots=2, depth=2, rounds=2, updates=2),
            "both_ways": dict(heads=2, length=3, slots=2, expansion=1.5, causal=False),
        },
    ),
    "token_turing_machine": Entry(
        TokenTuringMachine,
        "Token Turing machine",
        "2211.09119",
        state="(memory + process) * features / tokens",
        smoke=dict(process=2, memory=3, unit="mlp", units=5),
        variants={
            "transformer": dict(tokens=2, process=2, memory=2, units=3, heads=2, positions=True),
            "mixer": dict(tokens=2, process=3, memory=2, unit="mixer", units=3),
            "add_erase": dict(
                tokens=2, process=2, memory=3, mode="TL-AddErase", unit="mlp", units=3, depth=2
            ),
            "mean": dict(tokens=1, process=2, memory=2, mode="mean", units=3, heads=2),
        },
    ),
}
