"""Sequence to sequence and memory networks."""

from seqjax.layers.seq2seq.smt_memory_rnn import SMTMemoryRNN
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "smt_memory_rnn": Entry(
        SMTMemoryRNN,
        "Transformer-backbone RNN over memory tokens (the SMT student)",
        "2606.06479",
        state="memory * (width or features)",
        smoke=dict(memory=2, depth=1, heads=2),
    ),
}
