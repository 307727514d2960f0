"""Recurrent highway network (Zilly et al. 2017, arXiv:1607.03474): a deep step, of gated layers.

    s_l = h_l * t_l + s_{l-1} * c_l,     l = 1 .. L,  s_0 = y_{t-1},  y_t = s_L        eq. 6
    h_l = tanh   (W_H x_t 1[l = 1] + R_H^l s_{l-1} + b_H^l)                            eq. 7
    t_l = sigmoid(W_T x_t 1[l = 1] + R_T^l s_{l-1} + b_T^l)                            eq. 8
    c_l = sigmoid(W_C x_t 1[l = 1] + R_C^l s_{l-1} + b_C^l)                            eq. 9

L = `depth`, y [hidden]. `coupled`: c_l = 1 - t_l, as in the authors' code; else c has weights of
its own. b_T starts at `gate_bias`, below 0, and b_C above 0 by as much: the state passes through at
first. More happens within a step than in a stack of as many layers, which see the past of their own
level only: for language, and where what is next takes several turns.

dropout (arXiv:1512.05287): while training, x_t and each s_{l-1} enter the products times masks that
are the same for all layers and all steps of a piece; the s_{l-1} that is carried is not masked.
With a key they are drawn when the piece begins and kept in the state, so that a stream goes on with
them; without one a call is the evaluation form, and the masks stay as they are.

Rows of W [3 or 2 hidden, features], R and b are stacked in the order H, T, C. R starts orthogonal,
block by block, or by `recurrent_init`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent

UNDRAWN = -1.0


class NoisyState(NamedTuple):
    s: Array  # [hidden]
    masks: Array  # [features + hidden], of x and of s; UNDRAWN before the first step


class HighwayRNN(Recurrent):
    """The state is y, or NoisyState(y, masks) with a dropout."""

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        depth: int = 3,
        coupled: bool = True,
        gate_bias: float = -2.0,
        dropout: float = 0.0,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        self.features, self.coupled = features, coupled
        self.dropout, self.noisy = dropout, dropout > 0
        H = self.out_features = hidden or features
        self.masks = features + H if dropout else 0
        starts = jnp.array([0.0, gate_bias] if coupled else [0.0, gate_bias, -gate_bias])
        blocks = len(starts)
        self.W = nnx.Linear(features, blocks * H, use_bias=False, rngs=rngs)
        R = [recurrent_weights(H, blocks, init=recurrent_init, rngs=rngs) for _ in range(depth)]
        self.R = nnx.Param(jnp.stack(R))  # [depth, blocks * hidden, hidden]
        self.b = nnx.Param(jnp.tile(jnp.repeat(starts, H), (depth, 1)))

    @property
    def learned(self):
        return "s" if self.dropout else None

    def initial(self):
        s = jnp.zeros(self.out_features)
        return NoisyState(s, jnp.full(self.masks, UNDRAWN)) if self.dropout else s

    def drive(self, x, *flow):
        if not flow:
            return self.W(x)
        kept = flow[0].drawn(1 - self.dropout, (self.masks,))
        return (x, None) if kept is None else (x, kept.astype(x.dtype) / (1 - self.dropout))

    def step(self, state, z):
        if not self.dropout:
            return self.transition(state, z)
        s, masks = state
        x, drawn = z
        if drawn is None:
            return NoisyState(self.transition(s, self.W(x)), masks)
        masks = jnp.where(masks == UNDRAWN, drawn, masks)
        of_x, of_s = jnp.split(masks, [self.features])
        return NoisyState(self.transition(s, self.W(x * of_x), of_s), masks)

    def transition(self, s: Array, z: Array, mask: Array | None = None) -> Array:
        for layer in range(self.R.shape[0]):
            read = s if mask is None else s * mask
            a = self.R[layer] @ read + self.b[layer]
            a = a + z if layer == 0 else a
            h, *gates = jnp.split(a, 2 if self.coupled else 3)
            t, *c = map(jax.nn.sigmoid, gates)
            s = jnp.tanh(h) * t + s * (1 - t if self.coupled else c[0])
        return s

    def readout(self, state, x):
        return state.s if self.dropout else state
