"""Every class of layer in the package is a row of the table, or stands here and keeps its laws."""

import importlib
import pkgutil
from functools import partial
from typing import Any

import pytest
from flax import nnx

import seqjax
from seqjax.hf.fla_linear import Hedgehog, NormedAttention
from seqjax.hf.fla_rwkv import Stack
from seqjax.hf.glm import PooledAttention
from seqjax.hf.inkling import DistanceAttention, LogScale, ResidualConv
from seqjax.hf.inkling2 import ClippedAttention, DynamicConv
from seqjax.hf.minimax import LightningAttention
from seqjax.hf.parts import GatedShortConv, Parallel
from seqjax.hf.plamo import NormedMamba2
from seqjax.hf.qwen4 import Engram, PooledQueries
from seqjax.hf.zaya import CCA, Attended
from seqjax.layers.attention.attention import Attention
from seqjax.layers.elementwise.hgru import HGRU
from seqjax.layers.elementwise.sru import Cells
from seqjax.layers.elementwise.ur_lstm import URCell
from seqjax.layers.elementwise.xlstm import MLSTMBlock, SLSTMBlock
from seqjax.layers.fast_weights.delta_layer import DeltaLayer
from seqjax.layers.fast_weights.fwp import Sublayer
from seqjax.layers.hybrid.zamba import HybridBlock, SharedBlock
from seqjax.layers.linear_attention.based import GatedConv
from seqjax.layers.linear_attention.gateloop import SimpleGateLoop
from seqjax.layers.linear_attention.retnet import Retention
from seqjax.layers.linear_attention.transnormer import DiagonalAttention, NormAttention
from seqjax.layers.linear_attention.transnormer_llm import GatedNormAttention
from seqjax.layers.memory.external import ExternalMemory
from seqjax.layers.reservoir.deep_esn import Reservoirs
from seqjax.layers.reservoir.esn import Reservoir
from seqjax.layers.residual.e42 import Tied
from seqjax.layers.residual.e88 import TanhDelta
from seqjax.layers.rwkv.parts import RWKV
from seqjax.layers.ssm.griffin import RecurrentBlock
from seqjax.layers.ssm.lssl import TimeInvariant
from seqjax.layers.ssm.mega import MovingAverage
from seqjax.layers.ssm.s4d import DiagonalStateSpace, StateSpace
from seqjax.layers.ssm.sashimi import Level
from seqjax.nn import Associative, Layer, Recurrent, Segmented
from seqjax.nn.activations import relu
from seqjax.nn.blocks import Blocks
from seqjax.nn.combinators import Chain, Combined, Parallel as Beside, Residual
from seqjax.nn.linear import GLU
from seqjax.nn.norms import Norm
from seqjax.stacks.blocks import Using
from seqjax.testing import check_layer
from seqjax.zoo import LAYERS, make

D = 4
# What rows are made of: classes with something left to define.
BASES = {
    Associative, Blocks, Combined, DeltaLayer, DiagonalStateSpace, ExternalMemory, Recurrent, RWKV,
    Segmented, StateSpace, Sublayer, TimeInvariant,
    Reservoir, Reservoirs,
}  # fmt: skip
CONVOLVED = partial(
    CCA, D, heads=4, kv_heads=2, head_size=2, taps=(2, 3), window=4, bias=True, rotary_fraction=1.0
)
DISTANCES: dict[str, Any] = dict(
    heads=4, kv_heads=2, head_size=2, window=4, conv=3, size=3, extent=3, log_scale=LogScale(2, 0.3)
)
# Layers that are parts of rows, or of models that are read: class -> one of it.
PARTS = {
    Cells: lambda rngs: Cells(D, 0.0, "[0,1]", rngs),  # a quick one: `make test` takes the first
    Attended: lambda rngs: Attended(CONVOLVED, 2, norm_eps=1e-6, rngs=rngs),
    Beside: lambda rngs: Beside(make("gru", D), make("lru", D), join="sum"),
    Chain: lambda rngs: Chain(Norm(D), make("gru", D), nnx.Linear(D, D, rngs=rngs), features=D),
    Residual: lambda rngs: Residual(make("mamba", D, state=2)),
    CCA: lambda rngs: CONVOLVED(rngs=rngs),
    DiagonalAttention: lambda rngs: DiagonalAttention(D, heads=2, window=3, rngs=rngs),
    ClippedAttention: lambda rngs: ClippedAttention(
        D,
        **DISTANCES,
        limit=0.5,
        limit_p=0.7,
        dynamic=True,
        apart=True,
        norm_eps=1e-6,
        rngs=rngs,
    ),
    DistanceAttention: lambda rngs: DistanceAttention(D, **DISTANCES, rngs=rngs),
    DynamicConv: lambda rngs: DynamicConv(D, 3, 3, heads=2, scale=0.6, rngs=rngs),
    Engram: lambda rngs: Engram(
        D,
        streams=2,
        size=6,
        conv=2,
        norm_eps=1e-6,
        multipliers=(7, 9, 11),
        divisors=(5, 7),
        end=1,
        rngs=rngs,
    ),
    GatedConv: lambda rngs: GatedConv(D, inner=6, conv=3, rngs=rngs),
    GatedNormAttention: lambda rngs: GatedNormAttention(D, heads=2, rngs=rngs),
    GatedShortConv: lambda rngs: GatedShortConv(D, rngs=rngs),
    HGRU: lambda rngs: HGRU(
        D, complex_gate=False, inner=6, bias=False, norm="rms", conv=3, rngs=rngs
    ),
    Level: lambda rngs: Level(D, depth=1, pool=(2,), expand=2, ff=2, state=2, rngs=rngs),
    LightningAttention: lambda rngs: LightningAttention(D, heads=2, head_size=2, rngs=rngs),
    MLSTMBlock: lambda rngs: MLSTMBlock(D, heads=2, conv=3, expand=2, block=2, rngs=rngs),
    MovingAverage: lambda rngs: MovingAverage(D, ndim=2, rngs=rngs),
    NormAttention: lambda rngs: NormAttention(D, heads=2, phi=relu, norm=Norm(D), rngs=rngs),
    NormedAttention: lambda rngs: NormedAttention(
        D,
        heads=2,
        kv_heads=1,
        key_size=2,
        value_size=3,
        phi=Hedgehog,
        sums=(True, True),
        norm="rms",
        norm_eps=1e-6,
        rngs=rngs,
    ),
    NormedMamba2: lambda rngs: NormedMamba2(
        D, heads=2, head_size=2, state=2, rank=3, conv=3, norm_eps=1e-6, rngs=rngs
    ),
    Parallel: lambda rngs: Parallel(
        [partial(make, "gru", D), partial(make, "lru", D)], (1.0, 0.5), (0.7, 2.0), rngs=rngs
    ),
    PooledAttention: lambda rngs: PooledAttention(
        D,
        heads=2,
        latent=3,
        key_size=2,
        shared_size=0,
        query_latent=3,
        window=6,
        heads_i=4,
        size=3,
        top=4,
        pool=2,
        rngs=rngs,
    ),
    PooledQueries: lambda rngs: PooledQueries(
        D,
        heads=2,
        window=6,
        qk_norm="head",
        norm_eps=1e-6,
        gate=True,
        heads_i=4,
        size=3,
        top=4,
        pool=2,
        rngs=rngs,
    ),
    RecurrentBlock: lambda rngs: RecurrentBlock(D, conv=3, rngs=rngs),
    ResidualConv: lambda rngs: ResidualConv(D, 3, scale=0.6, rngs=rngs),
    Retention: lambda rngs: Retention(
        D,
        heads=2,
        key_size=4,
        norm="shared rms",
        scale="none",
        halves=True,
        qk_map="relu",
        rngs=rngs,
    ),
    SimpleGateLoop: lambda rngs: SimpleGateLoop(D, rngs=rngs),
    SLSTMBlock: lambda rngs: SLSTMBlock(
        D, heads=2, conv=3, expansion=1.3, mixing=True, depth=0.0, rngs=rngs
    ),
    Stack: lambda rngs: Stack(D, 2, heads=2, ranks=(2, 2, 2, 2), inner=3, rngs=rngs),
    TanhDelta: lambda rngs: TanhDelta(2, 2, 3, False),
    Tied: lambda rngs: Tied(D, init="orthogonal", scale=0.9, rngs=rngs),
    URCell: lambda rngs: URCell(D, rngs=rngs),
    Using: lambda rngs: Using(
        HybridBlock(D, partial(make, "mamba", D, state=2), rngs=rngs),
        SharedBlock(
            D,
            partial(Attention, 2 * D, out_features=D, heads=2, window=5),
            partial(GLU, D, 6),
            rngs=rngs,
        ),
    ),
}


def layers():
    """Every subclass of Layer that a module of the package defines."""
    for module in pkgutil.walk_packages(seqjax.__path__, "seqjax."):
        if ".kernels" not in module.name:
            importlib.import_module(module.name)
    found, left = set(), [Layer]
    while left:
        new = left.pop().__subclasses__()
        found |= {cls for cls in new if cls.__module__.startswith("seqjax.")}
        left += new
    return found


def test_no_layer_escapes_the_contract():
    rows = {entry.make for entry in LAYERS.values()}
    missing = layers() - rows - BASES - set(PARTS)
    assert not missing, f"{missing} are no rows: give each a row, or one of it in PARTS"
    assert not rows & set(PARTS), "rows are held to their laws by tests/test_layers.py"


@pytest.mark.share(1)
@pytest.mark.parametrize("cls", [pytest.param(cls, id=cls.__name__) for cls in PARTS])
def test_parts_keep_the_laws(cls):
    check_layer(PARTS[cls](nnx.Rngs(0)))
