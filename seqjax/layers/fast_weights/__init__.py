"""Fast weights: delta rules and inner learners."""

from seqjax.layers.entry import Entry
from seqjax.layers.fast_weights.deltaproduct import DeltaProduct
from seqjax.layers.fast_weights.gated_deltanet import GatedDeltaNet
from seqjax.layers.fast_weights.rwkv7 import RWKV7

ROWS: dict[str, Entry] = {
    "gated_deltanet": Entry(
        GatedDeltaNet,
        "Gated DeltaNet",
        "2412.06464",
        smoke=dict(heads=2, key_size=3, value_size=2, conv=2),
        variants={"negative": dict(heads=1, eigenvalues="[-1,1]")},
    ),
    "deltaproduct": Entry(
        DeltaProduct,
        "DeltaProduct: n_h Householder steps per token",
        "2502.10297",
        smoke=dict(n_h=2, heads=2, key_size=3, value_size=2, conv=2),
        variants={"ungated": dict(n_h=3, heads=1, gated=False, eigenvalues="[0,1]")},
    ),
    "rwkv7": Entry(
        RWKV7,
        "RWKV-7 Goose: generalised delta rule",
        "2503.14456",
        smoke=dict(heads=2, ranks=(2, 2, 2, 2)),
    ),
}
