"""Bidirectional wrapper (Schuster & Paliwal 1997) over any layer.

    y_t = [forward(x_1 ... x_t); backward(x_T ... x_t)]          [2 inner out_features]

Two layers of one kind, one of which reads the sequence from its end. Resets mark the first step of
a piece; read backwards that piece starts at its last step, so the backward layer resets at the kept
step *before* each mark (`seqjax.core.flags.ends`).

The state is that of both directions, BiState(forward, backward): the backward one enters at the end
of the sequence and leaves at its beginning. It serves initial and final states (torch's h_0, h_n),
not streaming: the future must be known.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.gru import GRU
from seqjax.nn.base import Layer, State


class BiState(NamedTuple):
    forward: State
    backward: State


class Bidirectional(Layer):
    """layer: (features, *, rngs) -> Layer; `make` also takes a name, or a pair (name, options)."""

    causal = False
    sequence_parallel = True

    def __init__(self, features: int, *, layer: Callable[..., Layer] = GRU, rngs: nnx.Rngs):
        self.features = features
        self.forward, self.backward = layer(features, rngs=rngs), layer(features, rngs=rngs)
        self.out_features = 2 * self.forward.out_features

    def parts(self):
        return BiState(self.forward, self.backward)

    def run(self, x, h, flow):
        y, forward = self.forward.example(x, h.forward, flow.part(0))
        y_back, backward = self.backward.example(x[::-1], h.backward, flow.backwards().part(1))
        return jnp.concatenate([y, y_back[::-1]], axis=-1), BiState(forward, backward)
