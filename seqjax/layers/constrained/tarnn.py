"""Time-adaptive recurrent network, TARNN (Kag & Saligrama 2021, CVPR).

    e(s) = f(U_1 s + U_2 h_{t-1} + W_1 x_t + W_2 x_{t-1} + b) - s - h_{t-1} + B_1 x_t + B_2 h_{t-1}
    g_t = sigmoid(U_g h_{t-1} + W_g x_t + b_g)                                       s, h [hidden]
    blended   s <- (1 - a_k(t)) s + a_k(t) e(s),   k = 1..K;   h_t = (1 - g_t) h_{t-1} + g_t s
    plain     s <- s + a_k(t) g_t e(s);                        h_t = s           from s = h_{t-1}

K (`substeps`) Euler steps of an equation whose time constants g_t the input makes; a_k(t) is
learned for every step t from the last start, up to `length`, after which the last one stays: the
absolute time is a part of the state. For sequences of known length, with time scales that vary.

As in the release x_{-1} = x_0, and `blended`, its b_variant, subtracts s twice. Matrices start
normal at 0.1, a_k(t) at `dt`, b_g at -3 with "blended" and 0 with "plain".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.elman import ACTIVATIONS
from seqjax.nn.base import Precise, option
from seqjax.nn.recurrent import Recurrent

FORMS = ("blended", "plain")


class TARNNState(NamedTuple):
    h: jax.Array  # [hidden], the output
    x: jax.Array  # [features], the input before
    t: jax.Array  # int32, steps since the start


class TARNN(Recurrent):
    evaluators = ("sequential",)  # a step counts
    learned = "h"

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        length: int = 1024,
        substeps: int = 1,
        activation: str = "relu",
        form: str = "blended",
        dt: float = 0.01,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.length = length
        self.activation = option("activation", activation, ACTIVATIONS)
        self.form = option("form", form, FORMS)
        normal = nnx.initializers.normal(0.1)

        def linear(m):
            return nnx.Linear(features, m, use_bias=False, kernel_init=normal, rngs=rngs)

        # of h: U_g, U_2, B_2; of x: W_g, W_1, B_1
        self.U = nnx.Param(normal(rngs.params(), (3 * H, H)))
        self.W, self.W_2 = linear(3 * H), linear(H)
        self.U_1 = nnx.Param(normal(rngs.params(), (H, H)))
        self.b_g = Precise(jnp.full(H, -3.0 if form == "blended" else 0.0))
        self.b = nnx.Param(jnp.zeros(H))
        self.a = Precise(jnp.full((substeps, length), dt))

    def initial(self):
        h, x = jnp.zeros(self.out_features), jnp.zeros(self.features)
        return TARNNState(h, x, jnp.zeros((), jnp.int32))

    def drive(self, x):
        return self.W(x), x

    def step(self, state, z):
        (h, before, t), (z, x) = state, z
        before = jnp.where(t == 0, x.astype(before.dtype), before)
        gate, seen, moved = jnp.split(z + self.U @ h, 3)
        gate = jax.nn.sigmoid(gate + self.b_g)
        seen = seen + self.b + self.W_2(before)
        s = h
        for a in self.a[:, jnp.minimum(t, self.length - 1)]:
            e = ACTIVATIONS[self.activation](self.U_1 @ s + seen) - s - h + moved
            s = (1 - a) * s + a * e if self.form == "blended" else s + a * gate * e
        new = (1 - gate) * h + gate * s if self.form == "blended" else s
        return TARNNState(new, x.astype(before.dtype), t + 1)

    def readout(self, h, x):
        return h.h
