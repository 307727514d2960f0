"""What a model is made of: the part of a config that `Model` reads.

A pattern of layers is written as words, each layer's name followed by its options KEY=VALUE; NAME*N
is N of them, so that `mamba2*3 attention` is three of one and one of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from math import isfinite
from typing import Annotated, Any, Literal

from tyro.constructors import PrimitiveConstructorSpec

from seqjax.core.ranges import Count, Fraction, NotNegative, Positive, Range, parse_value

MOST_BLOCKS = 10_000


def _parse_options(words: list[str]) -> dict[str, Any]:
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise ValueError(f"options are written KEY=VALUE, got {name!r}")
    return {name: parse_value(value) for name, _, value in pairs}


def show_options(options: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in options.items()]


def parse_pattern(
    words: list[str],
    form: str = "a pattern is layer names, each followed by its options KEY=VALUE",
) -> tuple[LayerConfig, ...]:
    starts = [n for n, word in enumerate(words) if "=" not in word]
    if not words or starts[:1] != [0]:
        raise ValueError(form)
    ends = starts[1:] + [len(words)]
    parts = [words[start:end] for start, end in zip(starts, ends, strict=True)]
    return tuple(LayerConfig(name, _parse_options(options)) for name, *options in parts)


def repeated(pattern: tuple[LayerConfig, ...]) -> tuple[LayerConfig, ...]:
    """The pattern with N layers for each one that is named NAME*N."""
    layers = []
    for layer in pattern:
        name, star, times = layer.name.partition("*")
        if star and not (name and times.isdecimal() and 1 <= int(times) <= MOST_BLOCKS):
            raise ValueError(
                f"a layer is repeated as NAME*N, with N from 1 to {MOST_BLOCKS}, got {layer.name!r}"
            )
        layers += [LayerConfig(name, layer.options)] * int(times or 1)
    return tuple(layers)


def parse_layers(words: list[str]) -> tuple[LayerConfig, ...]:
    return repeated(parse_pattern(words))


def show_pattern(pattern: tuple[LayerConfig, ...]) -> list[str]:
    """The words of the command line that mean the pattern."""
    words: list[str] = []
    for layer, run in groupby(pattern):
        times = len(list(run))
        words += [layer.name if times == 1 else f"{layer.name}*{times}"]
        words += show_options(layer.options)
    return words


def _parse_count(words: list[str]) -> Any:
    """1M, 250k, 1.5M, 1_000_000 or none; text that is none of them, which is refused by `check`."""
    text = words[0].lower()
    if text == "none":
        return None
    scale = {"k": 1e3, "m": 1e6, "g": 1e9}.get(text[-1:])
    try:
        number = float(text[:-1]) * scale if scale else float(text)
        return round(number) if isfinite(number) and number == round(number) else words[0]
    except ValueError:
        return words[0]


Options = Annotated[
    Mapping[str, Any],
    PrimitiveConstructorSpec(
        "*", "KEY=VALUE ...", _parse_options, lambda x: isinstance(x, Mapping), show_options
    ),
]
Pattern = Annotated[
    tuple["LayerConfig", ...],
    PrimitiveConstructorSpec(
        "*", "NAME[*N] [KEY=VALUE ...] ...", parse_layers,
        lambda x: isinstance(x, tuple), show_pattern,
    ),
]  # fmt: skip
Budget = Annotated[
    int | None,
    Range(1, 10**12),
    PrimitiveConstructorSpec(1, "N|None", _parse_count, lambda x: True, lambda x: [str(x)]),
]


@dataclass(frozen=True)
class LayerConfig:
    name: str  # a name of LAYERS
    options: Mapping[str, Any] = field(default_factory=dict)  # its options


@dataclass(frozen=True)
class ModelConfig:
    # a layer of LAYERS, or a pattern of several, repeated; () of an imported model
    layer: Pattern = (LayerConfig("gru"),)
    features: Count = 64  # width of the residual stream
    depth: Annotated[int, Range(1, MOST_BLOCKS)] = (
        2  # number of blocks, at least those of the pattern
    )
    # as 1M or 250k: `train` finds the features that give so many, within 2 %; None: as they are
    parameters: Budget = None
    vocabulary: Count | None = None  # tokens that it knows; None: those of the task
    # frames [H, W, C] are taken flat or by convolutions, they and rows [D] place by place
    front: Literal["flat", "conv", "places"] = "flat"
    norm: Literal["rms", "layer"] = "rms"  # before each branch, and the head
    mlp: Literal["glu", "mlp", "none"] = "glu"  # the branch after a mixer: gated (SiLU), plain, no
    expansion: Positive = 2.0  # hidden units of that branch, as a multiple of features
    dropout: Fraction = 0.0  # share of each branch's output that is dropped in training
    variational: bool = False  # one dropout mask for all time steps
    ar: NotNegative = 0.0  # in training, alpha of the mean square of what the last layer returns
    tar: NotNegative = 0.0  # in training, beta of the mean square of its change from step to step
    pool: Literal["last", "mean"] = "last"  # how a sequence becomes one answer, where it must
    unroll: Count = 1  # repetitions compiled one by one: faster on CPU, slower to compile
    # what the backward pass computes again, for less memory and more time: inside of each block, of
    # each block in chunks of time, of each repetition of the pattern; inputs of blocks on the host
    remat: Literal["none", "layer", "chunk", "full", "offload"] = "none"
    remat_chunk: Count = 128  # time steps of a chunk
    # so many time steps have their answers at once, where they are scored: of many classes the
    # answers of all steps are the largest array there is; None: all steps
    loss_chunk: Count | None = None
    # of activations; parameters are at least float32, and float64 needs JAX_ENABLE_X64=1
    compute: Literal["float32", "bfloat16", "float64"] = "float32"
    # of a model of pairs: the pattern that reads the source; none: that of `layer`
    encoder: Pattern = ()
    encoder_depth: Count | None = None  # its number of blocks; None: `depth`
    # how the decoder reads it: starts from its last states, attends to its outputs, or both
    bridge: Literal["state", "attention", "both"] = "attention"
    bridge_heads: Count = 4  # of that attention; they divide the features
    evaluator: str | None = None  # how layers scan (`seqjax explain`); None: chosen by the table

    def __post_init__(self) -> None:
        if isinstance(self.remat, bool):  # of a config before there were several
            object.__setattr__(self, "remat", "layer" if self.remat else "none")
