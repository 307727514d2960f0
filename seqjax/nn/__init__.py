"""What layers are made of: base classes, norms, convolutions, gates, feature maps, experts."""

from seqjax.nn.base import Frozen, Layer, Precise
from seqjax.nn.combinators import Chain, Parallel, Residual
from seqjax.nn.outputs import Outputs
from seqjax.nn.recurrent import Associative, Recurrent
from seqjax.nn.segmented import Segmented

__all__ = [
    "Associative",
    "Chain",
    "Frozen",
    "Layer",
    "Outputs",
    "Parallel",
    "Precise",
    "Recurrent",
    "Residual",
    "Segmented",
]
