"""Linear attention and its decays."""

from seqjax.layers.entry import Entry
from seqjax.layers.linear_attention.gla import GLA
from seqjax.layers.linear_attention.mlstm import MLSTM

ROWS: dict[str, Entry] = {
    "gla": Entry(
        GLA,
        "Gated linear attention",
        "2312.06635",
        smoke=dict(heads=2, key_size=3, rank=3),
        variants={"negative": dict(heads=2, key_size=3, rank=3, tau=0.5, eigenvalues="[-1,1]")},
    ),
    "mlstm": Entry(
        MLSTM,
        "mLSTM: exponential input gate, matrix memory, max-stabiliser",
        "2405.04517",
        smoke=dict(heads=2),
        variants={"exp": dict(heads=1, key_size=3, forget="exp", bias=False, gate_cap=15.0)},
    ),
}
