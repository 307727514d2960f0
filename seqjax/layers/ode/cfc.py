"""Closed-form continuous-time network, CfC (Hasani et al. 2022, arXiv:2106.13898).

    s = backbone([x_t, h_{t-1}]),   f, g, a, b = heads of s                        h [hidden]
    h_t = tanh(f) * (1 - w) + tanh(g) * w,   w = sigmoid(a dt + b)      mode "default"  eq. 10
    h_t = tanh(f) + tanh(g) * w                                         mode "no_gate"
    h_t = A - A * f * exp(-dt (|w_tau| + |f|))                          mode "pure"     eq. 2

The solution of a liquid time-constant equation (`ltc`), approximated: no solver runs. dt is the
time before the step, that of flow.dt or 1; w in the paper has the opposite sign. For sequences with
uneven times, and control.

The backbone has `layers` of `units` with `activation`; without layers the heads see [x, h]. With
`mixed_memory` an LSTM takes (x_t, h_{t-1}) first and its h goes in, while its cell stays with it.
As released, matrices start by Xavier's rule, A at 1 and w_tau at 0; biases at 0 here. Of the
release, dropout inside the backbone, its wirings and a projection of the output are not here.
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.classic.lstm import LSTM, LSTMState
from seqjax.nn.activations import gelu, relu, silu
from seqjax.nn.base import Precise, option
from seqjax.nn.initialisation import within
from seqjax.nn.recurrent import Recurrent


def lecun_tanh(x: jax.Array) -> jax.Array:
    return 1.7159 * jnp.tanh(0.666 * x)


MODES = ("default", "no_gate", "pure")
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "lecun_tanh": lecun_tanh,
    "tanh": jnp.tanh,
    "relu": relu,
    "silu": silu,
    "gelu": gelu,
}


class CfC(Recurrent):
    timed = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        mode: str = "default",
        units: int = 128,
        depth: Annotated[int, Range(0, 1000)] = 1,
        activation: str = "lecun_tanh",
        mixed_memory: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.mode = option("mode", mode, MODES)
        self.activation = option("activation", activation, ACTIVATIONS)
        count = 1 if mode == "pure" else 4

        def xavier(n, m):
            return within((6 / (n + m)) ** 0.5)

        def linear(n, m, copies=1):
            return nnx.Linear(n, copies * m, kernel_init=xavier(n, m), rngs=rngs)

        first = units if depth else count * H
        start = xavier(features + H, units if depth else H)
        self.W = nnx.Linear(features, first, kernel_init=start, rngs=rngs)
        self.U = nnx.Param(start(rngs.params(), (first, H)))
        self.backbone = nnx.List([linear(units, units) for _ in range(depth - 1)])
        self.heads = linear(units, H, count) if depth else None
        self.memory = LSTM(features, hidden=H, rngs=rngs) if mixed_memory else None
        pure = mode == "pure"
        self.w_tau = Precise(jnp.zeros(H)) if pure else None
        self.A = nnx.Param(jnp.ones(H)) if pure else None

    def initial(self):
        return jnp.zeros(self.out_features) if self.memory is None else self.memory.initial()

    def drive(self, x, flow):
        more = None if self.memory is None else self.memory.drive(x)
        return self.W(x), more, flow.elapsed(x)

    def step(self, h, z):
        s, more, dt = z
        memory = None if self.memory is None else self.memory.step(h, more)
        s = s + self.U @ (h if memory is None else memory.h)
        if self.heads is not None:
            f = ACTIVATIONS[self.activation]
            s = f(s)
            for layer in self.backbone:
                s = f(layer(s))
            s = self.heads(s)
        if self.A is not None and self.w_tau is not None:
            rate = jnp.abs(self.w_tau[...]) + jnp.abs(s)
            new = self.A - self.A * jnp.exp(-dt * rate) * s
        else:
            f, g, a, b = jnp.split(s, 4)
            w, f, g = jax.nn.sigmoid(dt * a + b), jnp.tanh(f), jnp.tanh(g)
            new = f + g * w if self.mode == "no_gate" else f * (1 - w) + g * w
        return new if memory is None else LSTMState(new, memory.c)

    def readout(self, h, x):
        return h if self.memory is None else h.h
