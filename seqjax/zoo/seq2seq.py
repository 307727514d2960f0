"""Sequence to sequence and memory networks."""

from seqjax.layers.seq2seq.bahdanau import Bahdanau
from seqjax.layers.seq2seq.mdn_handwriting import MDNHandwriting
from seqjax.layers.seq2seq.smt_memory_rnn import SMTMemoryRNN
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "bahdanau": Entry(
        Bahdanau,
        "Additive attention decoder",
        "1409.0473",
        state="hidden + looked",
        smoke=dict(hidden=3, align=5),
        variants={
            "plain": dict(hidden=3, align=5, deep=0),
            "dot": dict(score="dot"),
            "general": dict(hidden=3, score="general", window=2),
            "concat": dict(hidden=3, align=5, score="concat"),
            "mlp": dict(hidden=3, align=5, score="mlp", window=3),
        },
    ),
    "mdn_handwriting": Entry(
        MDNHandwriting,
        "Mixture-density handwriting LSTM",
        "1308.0850",
        state="depth * 2 * hidden + features + components",
        smoke=dict(hidden=3, depth=2, components=2),
        variants={"slow": dict(hidden=3, depth=1, components=2, pace=0.2)},
    ),
    "smt_memory_rnn": Entry(
        SMTMemoryRNN,
        "Transformer-backbone RNN over memory tokens (the SMT student)",
        "2606.06479",
        state="memory * (width or features)",
        smoke=dict(memory=2, depth=1, heads=2),
    ),
}
