"""The table of layers: name -> Entry, under the names of the literature survey.

A row is all that a new layer needs: the contract of `tests/test_layers.py`, the README table,
`seqjax list`, the models and the benchmarks are made from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flax import nnx

from seqjax.common import unknown
from seqjax.layers.base import (
    Associative,
    Frozen,
    Layer,
    Precise,
    Recurrent,
    Segmented,
)
from seqjax.layers.classic.bidirectional import Bidirectional
from seqjax.layers.classic.elman import Elman
from seqjax.layers.classic.gru import GRU
from seqjax.layers.classic.lstm import LSTM
from seqjax.layers.classic.stacked import Stacked
from seqjax.layers.elementwise.indrnn import IndRNN
from seqjax.layers.elementwise.min_gru import MinGRU
from seqjax.layers.elementwise.min_lstm import MinLSTM
from seqjax.layers.elementwise.qrnn import QRNN
from seqjax.layers.elementwise.slstm import SLSTM
from seqjax.layers.fast_weights.deltaproduct import DeltaProduct
from seqjax.layers.fast_weights.gated_deltanet import GatedDeltaNet
from seqjax.layers.fast_weights.rwkv7 import RWKV7
from seqjax.layers.linear_attention.gla import GLA
from seqjax.layers.linear_attention.mlstm import MLSTM
from seqjax.layers.reservoir.esn import ESN
from seqjax.layers.residual.e59 import E59
from seqjax.layers.segment.transformer_xl import TransformerXL
from seqjax.layers.seq2seq.smt_memory_rnn import SMTMemoryRNN
from seqjax.layers.ssm.griffin import Griffin
from seqjax.layers.ssm.hawk import Hawk
from seqjax.layers.ssm.lru import LRU
from seqjax.layers.ssm.mamba import Mamba
from seqjax.layers.ssm.mamba2 import Mamba2
from seqjax.layers.ssm.rg_lru import RGLRU
from seqjax.layers.ssm.s4d import S4D


@dataclass(frozen=True)
class Entry:
    """One row: a layer, what it is and where it comes from.

    smoke: options that make it tiny, for tests and examples (features is always 4 there).
    variants: further option sets that are held to the same contract.
    exempt: name of a law -> why it does not hold for this layer (tests read it, README shows it).
    """

    cls: type[Layer]
    family: str
    title: str
    reference: str
    smoke: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)


LAYERS: dict[str, Entry] = {
    "elman": Entry(
        Elman,
        "classic",
        "Elman network",
        "Elman 1990",
        variants={"relu": dict(activation="relu", feedthrough=True)},
    ),
    "lstm": Entry(
        LSTM,
        "classic",
        "LSTM with forget gate",
        "Gers et al. 2000",
        smoke=dict(hidden=3),
        variants={"peepholes": dict(hidden=3, peepholes=True)},
    ),
    "gru": Entry(
        GRU,
        "classic",
        "Gated recurrent unit",
        "1406.1078",
        variants={"reset_after": dict(reset="after")},
    ),
    "bidirectional": Entry(
        Bidirectional,
        "classic",
        "Bidirectional wrapper over any layer",
        "Schuster & Paliwal 1997",
        smoke=dict(layer=("gru", dict(hidden=3))),
        exempt={
            law: "it reads the sequence from both ends"
            for law in (
                "split stream == whole",
                "single steps == full pass",
                "causality",
                "reset == fresh start, NaN before it",
            )
        },
    ),
    "stacked": Entry(
        Stacked,
        "classic",
        "Layers on top of each other, residual as in GNMT",
        "1609.08144",
        smoke=dict(layers=("elman", ("gru", dict(hidden=3)))),
        variants={"residual": dict(layers=("lru", "min_gru"), residual=True)},
    ),
    "indrnn": Entry(
        IndRNN,
        "elementwise",
        "Independently recurrent network",
        "1803.04831",
        variants={"tanh": dict(hidden=3, activation="tanh"), "linear": dict(activation="linear")},
    ),
    "min_gru": Entry(
        MinGRU,
        "elementwise",
        "minGRU",
        "2410.01201",
        variants={"expanded": dict(expansion=1.5, candidate="linear")},
    ),
    "min_lstm": Entry(
        MinLSTM,
        "elementwise",
        "minLSTM: normalised gates",
        "2410.01201",
        variants={"expanded": dict(expansion=1.5, candidate="linear")},
    ),
    "qrnn": Entry(
        QRNN,
        "elementwise",
        "Quasi-recurrent network: f-, fo- and ifo-pooling, convolution of any width",
        "1611.01576",
        smoke=dict(hidden=3),
        variants={
            "f": dict(pooling="f", window=1),
            "ifo": dict(hidden=3, pooling="ifo", window=3, zoneout=0.2),
        },
    ),
    "slstm": Entry(
        SLSTM,
        "elementwise",
        "sLSTM: exponential gates, normaliser, stabiliser",
        "2405.04517",
        smoke=dict(heads=2),
        variants={"exp": dict(hidden=3, forget="exp")},
    ),
    "e59": Entry(
        E59,
        "residual",
        "E59: residual recurrence, pure, gated (E59b) and mixed (E59c)",
        "elman project",
        variants={
            "gated": dict(form="gated", expansion=1.5),
            "mixed": dict(form="mixed"),
            "pure_sum": dict(norm=False),
            "gated_sum": dict(form="gated", norm=False),
            "mixed_linear": dict(form="mixed", norm=False),
        },
    ),
    "esn": Entry(
        ESN,
        "reservoir",
        "Leaky echo state network, weights not trained",
        "Jaeger 2001",
        smoke=dict(hidden=6, density=0.5, leak=0.5),
        variants={
            "leaks": dict(
                hidden=3, density=1.0, leak=(0.1, 0.5, 1.0), bias_scale=0.2, activation="sigmoid"
            )
        },
    ),
    "transformer_xl": Entry(
        TransformerXL,
        "segment",
        "Transformer-XL: segment recurrence, relative positions",
        "1901.02860",
        smoke=dict(heads=2, length=3, memory=2, feed_forward=5),
        variants={
            "pre_norm": dict(length=2, memory=3, head_size=3, pre_norm=True),
            "detached": dict(length=2, memory=3, feed_forward=0, detach_memory=True),
            "no_memory": dict(length=4, memory=0),
        },
        exempt={"learned h0 has a gradient": "the memory starts empty: there is nothing to learn"},
    ),
    "smt_memory_rnn": Entry(
        SMTMemoryRNN,
        "seq2seq",
        "Transformer-backbone RNN over memory tokens (the SMT student)",
        "2606.06479",
        smoke=dict(memory=2, depth=1, heads=2),
    ),
    "lru": Entry(LRU, "ssm", "Linear recurrent unit", "2303.06349", smoke=dict(state=3)),
    "s4d": Entry(
        S4D,
        "ssm",
        "S4D: diagonal state spaces; Lin, Inv, LegS inits; ZOH and bilinear",
        "2206.11893",
        smoke=dict(state=4),
        variants={
            "bilinear": dict(state=4, init="inv", discretisation="bilinear"),
            "unmixed": dict(state=4, init="legs", mix=False),
        },
    ),
    "mamba": Entry(
        Mamba,
        "ssm",
        "Mamba (S6): selective scan, convolution, gate",
        "2312.00752",
        smoke=dict(state=3, conv=3, dt_rank=2),
        variants={"negative": dict(state=3, conv=2, expand=1, eigenvalues="[-1,1]")},
    ),
    "mamba2": Entry(
        Mamba2,
        "ssm",
        "Mamba-2: state-space duality",
        "2405.21060",
        smoke=dict(state=3, heads=4, groups=2, conv=3),
        variants={"negative": dict(state=3, heads=2, conv=2, expand=1, eigenvalues="[-1,1]")},
    ),
    "rg_lru": Entry(
        RGLRU,
        "ssm",
        "RG-LRU",
        "2402.19427",
        smoke=dict(blocks=2),
        variants={
            "unscaled_start": dict(unscaled_start=True),
            "negative": dict(eigenvalues="[-1,1]"),
        },
    ),
    "griffin": Entry(
        Griffin,
        "ssm",
        "Griffin: RG-LRU blocks mixed with local multi-query attention",
        "2402.19427",
        smoke=dict(pattern=("recurrent", "attention"), heads=2, conv=2, window=3, expansion=1.0),
        variants={"wide": dict(heads=2, width=6, window=8, expansion=0, unscaled_start=True)},
    ),
    "hawk": Entry(
        Hawk,
        "ssm",
        "Hawk: the recurrent blocks of Griffin alone",
        "2402.19427",
        smoke=dict(heads=2, expansion=1.0),
        variants={"two": dict(blocks=2, heads=1, expansion=0.0, eigenvalues="[-1,1]")},
    ),
    "gla": Entry(
        GLA,
        "linear_attention",
        "Gated linear attention",
        "2312.06635",
        smoke=dict(heads=2, key_size=3, rank=3),
        variants={"negative": dict(heads=2, key_size=3, rank=3, tau=0.5, eigenvalues="[-1,1]")},
    ),
    "mlstm": Entry(
        MLSTM,
        "linear_attention",
        "mLSTM: exponential input gate, matrix memory, max-stabiliser",
        "2405.04517",
        smoke=dict(heads=2),
        variants={"exp": dict(heads=1, key_size=3, forget="exp", bias=False, gate_cap=15.0)},
    ),
    "gated_deltanet": Entry(
        GatedDeltaNet,
        "fast_weights",
        "Gated DeltaNet",
        "2412.06464",
        smoke=dict(heads=2, key_size=3, value_size=2, conv=2),
        variants={"negative": dict(heads=1, eigenvalues="[-1,1]")},
    ),
    "deltaproduct": Entry(
        DeltaProduct,
        "fast_weights",
        "DeltaProduct: n_h Householder steps per token",
        "2502.10297",
        smoke=dict(n_h=2, heads=2, key_size=3, value_size=2, conv=2),
        variants={"ungated": dict(n_h=3, heads=1, gated=False, eigenvalues="[0,1]")},
    ),
    "rwkv7": Entry(
        RWKV7,
        "fast_weights",
        "RWKV-7 Goose: generalised delta rule",
        "2503.14456",
        smoke=dict(heads=2, ranks=(2, 2, 2, 2)),
    ),
}


def factory(
    spec: str | tuple[str, Mapping[str, Any]] | Callable[..., Layer],
) -> Callable[..., Layer]:
    """(features, *, rngs) -> Layer for a name, a pair (name, options), or such a callable.

    Unknown names and options are refused here, before anything is built. The options `layer` and
    `layers` of wrappers are factories themselves, and are given in the same three ways.
    """
    if callable(spec):
        return spec
    name, options = (spec, {}) if isinstance(spec, str) else spec
    if name not in LAYERS:
        raise ValueError(unknown("layer", name, LAYERS))
    cls = LAYERS[name].cls
    known = [
        p
        for p in inspect.signature(cls.__init__).parameters
        if p not in ("self", "features", "rngs")
    ]
    for option in options:
        if option not in known:
            raise ValueError(unknown(f"option of layer {name!r}:", option, known))
    options = dict(options)
    if "layer" in options:
        options["layer"] = factory(options["layer"])
    if "layers" in options:
        options["layers"] = tuple(factory(layer) for layer in options["layers"])
    return partial(cls, **options)


def make(name: str, features: int, *, rngs: nnx.Rngs | None = None, **options) -> Layer:
    """A layer by name.

    >>> make("gru", 16, hidden=32)(x)[0].shape        # x [B, T, 16]
    (B, T, 32)
    >>> make("bidirectional", 16, layer=("gru", {"hidden": 32}))(x)[0].shape
    (B, T, 64)
    """
    return factory((name, options))(features, rngs=rngs or nnx.Rngs(0))


__all__ = [
    "LAYERS",
    "Associative",
    "Entry",
    "Frozen",
    "Layer",
    "Precise",
    "Recurrent",
    "Segmented",
    "factory",
    "make",
]
