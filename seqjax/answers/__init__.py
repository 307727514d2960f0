"""What goes into a model and what is answered: open sets, a new kind is one class in one file.

    Input     its arrays and their embedding                         Tokens, Features, Vector, Pair
    Answer    its loss, metrics, sampling and the size of the head   Classes, Values, Strokes, ...

Models, training, evaluation and generation ask a kind for what they need, and never which it is.
"""

from seqjax.answers.actions import Actions
from seqjax.answers.answer import Answer, Metrics
from seqjax.answers.bernoullis import Bernoullis
from seqjax.answers.chunks import Chunks
from seqjax.answers.classes import Classes
from seqjax.answers.counts import NegativeBinomial, Poisson
from seqjax.answers.detection import Detection
from seqjax.answers.inputs import Features, Input, Pair, Paired, Tokens, Vector
from seqjax.answers.labels import Labels
from seqjax.answers.likelihoods import Gaussian, StudentT
from seqjax.answers.mixtures import Mixture, Strokes
from seqjax.answers.quantiles import Quantiles
from seqjax.answers.spans import Spans
from seqjax.answers.values import Values

__all__ = [
    "Actions", "Answer", "Bernoullis", "Chunks", "Classes", "Detection", "Features", "Gaussian",
    "Input", "Labels", "Metrics", "Mixture", "NegativeBinomial", "Pair", "Paired", "Poisson",
    "Quantiles", "Spans", "Strokes", "StudentT", "Tokens", "Values", "Vector",
]  # fmt: skip
