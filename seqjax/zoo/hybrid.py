"""Hybrids: recurrences and attention in one stack."""

from seqjax.layers.hybrid.jamba import Jamba
from seqjax.layers.hybrid.parallel import ParallelHeads
from seqjax.layers.hybrid.rnn_mlp import RecurrentMLP
from seqjax.layers.hybrid.stripedhyena import StripedHyena
from seqjax.layers.hybrid.zamba import Zamba
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "stripedhyena": Entry(
        StripedHyena,
        "Interleaved SSM/attention at a set ratio (about one quarter attention)",
        "2403.17844",
        state=(
            "hyenas * (2 * (order + 1) + (order - 1) * past) * features"
            " + attentions * 2 * (window - 1) * keys"
        ),
        smoke=dict(depth=2, attention_every=2, heads=2, window=3, length=5, width=3, expansion=1.0),
        variants={
            "modes": dict(
                depth=2, attention_every=2, heads=2, window=3, modes=2, expansion=1.0, bias=True
            ),
        },
    ),
    "jamba": Entry(
        Jamba,
        "Jamba: Mamba + attention + mixture of experts",
        "2403.19887",
        state=(
            "mambas * expand * features * (state + conv - 1) + attentions * 2 * (window - 1) * keys"
        ),
        smoke=dict(
            depth=2,
            attention_every=2,
            attention_at=1,
            experts_every=2,
            experts=3,
            top=2,
            heads=2,
            kv_heads=1,
            window=3,
            expansion=1.0,
            state=2,
            conv=2,
            expand=1,
            dt_rank=1,
        ),
        variants={
            "one": dict(
                depth=2,
                attention_every=2,
                attention_at=0,
                experts_every=1,
                experts=2,
                top=1,
                heads=2,
                window=2,
                expansion=0.5,
                state=2,
                conv=2,
                expand=1,
                dt_rank=1,
            ),
        },
    ),
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
                mamba_heads=2,
                expansion=1.0,
                state=2,
                conv=2,
                expand=1,
            ),
        },
    ),
    "rnn_mlp": Entry(
        RecurrentMLP,
        "Recurrent + MLP hybrid stack",
        "Edifice build_hybrid",
        state="held",
        smoke=dict(hidden=3),
        variants={"deep": dict(cell="gru", depth=2, hidden=3, widths=(5, 2))},
    ),
    "parallel": Entry(
        ParallelHeads,
        "Layers side by side, normalised and weighed, as the heads of Hymba",
        "2411.13676",
        smoke=dict(layers=("lru", ("attention", dict(heads=2, window=3)))),
        variants={"one": dict(layers=(("gru", dict(hidden=3)),))},
    ),
}
