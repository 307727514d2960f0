"""Recurrent layers, then an MLP at every step (Edifice, `Edifice.Recurrent.build_hybrid`).

    z^0 = N(x)
    z^n = N(RNN(z^{n-1}))              `depth` times, an LSTM or a GRU of `hidden` units
    y <- relu(W y + b)                 of z^depth, for each of `widths`

The recurrence carries what is past, the MLP bends what it found. N is LayerNorm. There the MLP sees
the last step alone; here every step has an output, and the last is that one. `cell` is "lstm",
"gru" (reset "after") or "rnn". Not here: dropout, which is the model's, and truncation, the
learner's.

It is a chain of layers (`seqjax.nn.Chain`): the state is that of every recurrent layer.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import jax
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.segment.r_transformer import CELLS
from seqjax.nn.activations import relu
from seqjax.nn.base import option
from seqjax.nn.combinators import Chain
from seqjax.nn.norms import NORMS, Norm

LayerNorm = partial(Norm, **NORMS["layer"])


class RecurrentMLP(Chain):
    def __init__(
        self,
        features: int,
        *,
        cell: str = "lstm",
        depth: Annotated[int, Range(1)] = 1,
        hidden: int | None = None,
        widths: Sequence[int] | None = None,
        rngs: nnx.Rngs,
    ):
        """hidden, widths: by default as many as features, and one layer of as many."""
        H = hidden or features
        widths = (features,) if widths is None else tuple(widths)
        make = CELLS[option("cell", cell, CELLS)]
        modules = [LayerNorm(features)]
        for width in (features, *[H] * (depth - 1)):
            modules += [make(width, hidden=H, rngs=rngs), LayerNorm(H)]
        for before, width in zip((H, *widths), widths, strict=False):
            modules += [nnx.Linear(before, width, rngs=rngs), relu]
        super().__init__(*modules, features=features)
        self.held = sum(leaf.size for leaf in jax.tree.leaves(self.initial()))
