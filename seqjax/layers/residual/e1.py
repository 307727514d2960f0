"""E1, gated Elman (the elman project's "Mamba-gated Elman").

    u_t = silu(conv(P x_t))                                              u, h [expansion features]
    h_t = tanh(W u_t + U h_{t-1} + b)                                    `elman`
    y_t = Q (h_t * silu(Z x_t))

An Elman network where a Mamba block has its state space: all that is nonlinear in h stays in the
recurrence, and a gate of the input chooses what of it is read. The project's base line for `e33`,
`e42` and `e59`, each of which takes something out.

conv: taps of a causal convolution per channel, with a bias; 0, the default: none. P, W, Q and Z are
drawn by Xavier's rule, U by `recurrent_init` times `recurrent_scale`: "orthogonal" times 0.999 is
the project's `mamba2_init`. Left out: U divided by its largest singular value (`r_h_mode`), and a
dropout of what Q reads, which is the model's.
"""

from typing import Annotated

import jax
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.classic.elman import Elman
from seqjax.nn.base import Layer
from seqjax.nn.convolution import Convolved, ShortConv


class E1(Layer):
    """The state is h, or Convolved(window, h) with a convolution."""

    gated = True  # by Z x
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        expansion: float = 1.0,
        conv: Annotated[int, Range(0)] = 0,
        recurrent_init: str = "glorot",
        recurrent_scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        H = self.hidden = int(features * expansion)
        self.taps = H * max(0, conv - 1)
        self.P = self.linear(features, H, rngs)
        self.Z = self.linear(features, H, rngs) if self.gated else None
        self.conv = ShortConv(H, conv, rngs=rngs) if conv else None
        self.cell = self.recurrence(H, recurrent_init, recurrent_scale, rngs)
        self.Q = self.linear(H, features, rngs)

    def linear(self, n: int, m: int, rngs: nnx.Rngs) -> nnx.Linear:
        xavier = nnx.initializers.xavier_uniform()
        return nnx.Linear(n, m, use_bias=False, kernel_init=xavier, rngs=rngs)

    def recurrence(self, hidden: int, init: str, scale: float, rngs: nnx.Rngs) -> Layer:
        return Elman(hidden, recurrent_init=init, recurrent_scale=scale, rngs=rngs)

    def parts(self):
        return self.cell if self.conv is None else Convolved(self.conv, self.cell)

    def run(self, x, h, flow):
        u = self.P(x)
        if self.conv is None:
            states, S = self.cell.example(jax.nn.silu(u), h, flow)
            return self.read(states, x), S
        u, window = self.conv(u, h.window, flow)
        states, S = self.cell.example(jax.nn.silu(u), h.S, flow)
        return self.read(states, x), Convolved(window, S)

    def read(self, h: jax.Array, x: jax.Array) -> jax.Array:
        """Outputs of the states [T, hidden]."""
        return self.Q(h * jax.nn.silu(h if self.Z is None else self.Z(x)))
