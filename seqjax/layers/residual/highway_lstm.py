"""Highway LSTM (Zhang et al. 2016, arXiv:1510.08983; Pundak & Sainath 2017): cells of neighbouring
layers are joined by a gate.

    d^l_t = sigmoid(W_d x^l_t + w_dc * c^l_{t-1} + w_dl * c^{l-1}_t + b_d)           l = 2 .. depth
    c^l_t = f^l_t * c^l_{t-1} + i^l_t * g^l_t + d^l_t * c^{l-1}_t
    h^l_t = o^l_t * tanh(c^l_t),     x^{l+1}_t = h^l_t,     y_t = h^depth_t

with i, f, g, o as in `lstm`; the first layer is one. What forget gates are for time, the depth
gates d are for depth: an error reaches low layers along the cells, so that stacks of ten layers of
speech models train. `peepholes`: i, f and o see the cell, too, as in the first paper. W_d sees
neither h nor a nonlinear part of it. |c| may exceed that of an LSTM.

The state is an LSTMState (h, c) for each layer. b_f starts at 1, b_d at -2: gates begin nearly
closed. U starts orthogonal, block by block, or by `recurrent_init`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.lstm import LSTM
from seqjax.nn.recurrent import Recurrent


class DepthGate(nnx.Module):
    """d of one layer."""

    def __init__(self, features: int, hidden: int, rngs: nnx.Rngs):
        bias = nnx.initializers.constant(-2.0)
        self.W = nnx.Linear(features, hidden, bias_init=bias, rngs=rngs)
        self.w = nnx.Param(jnp.zeros((2, hidden)))  # of the cell before, and of that below

    def __call__(self, x, before, below):
        w = self.w[...]
        return jax.nn.sigmoid(self.W(x) + w[0] * before + w[1] * below)


class HighwayLSTM(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        depth: int = 2,
        peepholes: bool = False,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        self.features, self.depth = features, depth
        H = self.out_features = hidden or features
        lstm = partial(LSTM, hidden=H, peepholes=peepholes, recurrent_init=recurrent_init)
        widths = [features] + [H] * (depth - 1)
        self.layers = nnx.List([lstm(width, rngs=rngs) for width in widths])
        self.gates = nnx.List([DepthGate(H, H, rngs) for _ in range(depth - 1)])

    def initial(self):
        return tuple(layer.initial() for layer in self.layers)

    def drive(self, x):
        return self.layers[0].drive(x)

    def step(self, states, z):
        new = [self.layers[0].step(states[0], z)]
        for layer, gate, state in zip(self.layers[1:], self.gates, states[1:]):
            x, below = new[-1].h, new[-1].c
            added = gate(x, state.c, below) * below
            new.append(layer.step(state, layer.drive(x), added))
        return tuple(new)

    def readout(self, states, x):
        return states[-1].h
