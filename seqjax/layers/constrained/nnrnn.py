"""Non-normal recurrent network, nnRNN (Kerg et al. 2019, arXiv:1905.12080).

    h_t = f(U x_t + V^T h_{t-1}) = y_t                                 h [hidden], hidden even
    V = P (Theta + T) P^T,   P^T P = I                                                  eq. 2

The real Schur form of a matrix: Theta has blocks alpha_j [[cos t_j, -sin t_j], [sin t_j, cos t_j]],
which are the eigenvalues, T what lies above the diagonal, by which V is not normal. Started at
alpha = 1 and T = 0 it is orthogonal; T lets it amplify for a while and then settle, which an
orthogonal matrix cannot: for long memory with richer dynamics.

P = exp(S) of a skew-symmetric S, whose numbers above the diagonal are trained as in
`orthogonal_rnn`, at a tenth of the rate. As in the release T has an entry inside each block too,
and rows are multiplied. f is `modrelu` with its b, or tanh, relu, sigmoid or linear of what has b
added; the release holds alpha near 1 by a penalty, and has no bias.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.layers.classic.elman import ACTIVATIONS
from seqjax.layers.constrained.orthogonal_rnn import modrelu
from seqjax.layers.constrained.skew import blocks, exponential, from_upper
from seqjax.nn.base import Group, Precise, option
from seqjax.nn.initialisation import within
from seqjax.nn.recurrent import Recurrent


class NNRNN(Recurrent):
    trained: ClassVar = {"skew": Group(0.1, 0.0)}

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        activation: str = "modrelu",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        if H % 2:
            raise ValueError(f"hidden must be even, for pairs of units that turn, got {H}")
        self.activation = option("activation", activation, ("modrelu", *ACTIVATIONS))
        xavier = nnx.initializers.xavier_normal()
        self.U = nnx.Linear(features, H, use_bias=False, kernel_init=xavier, rngs=rngs)
        self.skew = Precise(blocks(within(math.pi)(rngs.params(), (H // 2,)), H))
        turns = jax.random.uniform(rngs.params(), (H // 2,), maxval=2 * math.pi)
        self.theta, self.alpha = Precise(turns), Precise(jnp.ones(H // 2))
        self.T = nnx.Param(jnp.zeros(H * (H - 1) // 2))
        self.b = Precise(within(0.01)(rngs.params(), (H,)))

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.U(x)

    def schur(self, P: jax.Array) -> jax.Array:
        """V."""
        H, even = self.out_features, np.arange(0, self.out_features, 2)
        cos, sin = (self.alpha * f(self.theta[...]) for f in (jnp.cos, jnp.sin))
        T = jnp.zeros((H, H), P.dtype).at[np.triu_indices(H, 1)].set(self.T[...].astype(P.dtype))
        T = T.at[even, even].add(cos).at[even + 1, even + 1].add(cos)
        return P @ T.at[even, even + 1].add(-sin).at[even + 1, even].add(sin) @ P.T

    def shared(self):
        """V^T."""
        return self.schur(exponential(from_upper(self.skew[...], self.out_features))).T

    def step(self, h, z, V=None):
        z = z + (self.shared() if V is None else V) @ h
        if self.activation == "modrelu":
            return modrelu(z, self.b[...])
        return ACTIVATIONS[self.activation](z + self.b[...])
