"""Linear attention and its decays."""

from seqjax.layers.entry import Entry
from seqjax.layers.linear_attention.cosformer import CosFormer
from seqjax.layers.linear_attention.gla import GLA
from seqjax.layers.linear_attention.linear_transformer import LinearTransformer
from seqjax.layers.linear_attention.mlstm import MLSTM
from seqjax.layers.linear_attention.performer import Performer
from seqjax.layers.linear_attention.rfa import RFA

ROWS: dict[str, Entry] = {
    "linear_transformer": Entry(
        LinearTransformer,
        "Linear Transformer: elu + 1, or any feature map",
        "2006.16236",
        state="heads * size * (V + 1)",
        smoke=dict(heads=2),
        variants={
            "dpfp": dict(heads=1, key_size=3, value_size=2, feature_map=("dpfp", {"nu": 2})),
            "taylor": dict(heads=2, feature_map="taylor", bias=False, denominator="max"),
        },
    ),
    "performer": Entry(
        Performer,
        "Performer: positive and trigonometric FAVOR+ features",
        "2009.14794",
        state="heads * size * (V + 1)",
        smoke=dict(heads=2, count=3),
        variants={
            "hyperbolic": dict(heads=1, feature_map="favor+-"),
            "relu": dict(heads=2, count=3, feature_map="random_relu"),
        },
    ),
    "rfa": Entry(
        RFA,
        "Random feature attention, and RFA-gate",
        "2103.02143",
        state="heads * size * (V + 1)",
        smoke=dict(heads=2, count=3),
        variants={"gate": dict(heads=2, gate=True, tau=0.7)},
    ),
    "cosformer": Entry(
        CosFormer,
        "cosFormer: relu features, cosine re-weighting",
        "2202.08791",
        state="heads * size * (V + 1)",
        smoke=dict(heads=2, length=20),
    ),
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
