"""What layers are made of: base classes, norms, convolutions, gates, feature maps, experts."""

from seqjax.nn.base import Frozen, Layer, Precise
from seqjax.nn.outputs import Outputs
from seqjax.nn.recurrent import Associative, Recurrent
from seqjax.nn.segmented import Segmented

__all__ = ["Associative", "Frozen", "Layer", "Outputs", "Precise", "Recurrent", "Segmented"]
