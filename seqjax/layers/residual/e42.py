"""E42, linear tied self-gated Elman (the elman project): one matrix, and no tanh.

    u_t = silu(conv(P x_t))                                              u, h [expansion features]
    h_t = W u_t + W h_{t-1} + b                                          W [u, u] of both
    y_t = Q (h_t * silu(h_t))

`e33` without tanh and with U = W: the recurrence is linear, and a nonlinearity is at the output
only. "newton" is exact after one scan. What h keeps is decided by the eigenvalues of W alone: below
1 it fades, above it grows without bound. W is drawn by `recurrent_init` times `recurrent_scale`;
"orthogonal" times 0.999 is the project's `mamba2_init`. Its `spectral_radius`, by which W may be
held to a largest singular value, is off in its code by default and not here.
"""

import jax.numpy as jnp
from flax import nnx

from seqjax.layers.residual.e33 import E33
from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent


class Tied(Recurrent):
    """h_t = W (x_t + h_{t-1}) + b."""

    def __init__(self, features: int, *, init: str, scale: float, rngs: nnx.Rngs):
        self.features = self.out_features = features
        self.W = nnx.Param(recurrent_weights(features, init=init, scale=scale, rngs=rngs))
        self.b = nnx.Param(jnp.zeros(features))

    def initial(self):
        return jnp.zeros(self.features)

    def drive(self, x):
        return x @ self.W.T + self.b[None]

    def step(self, h, z):
        return z + self.W @ h


class E42(E33):
    def recurrence(self, hidden, init, scale, rngs):
        return Tied(hidden, init=init, scale=scale, rngs=rngs)
