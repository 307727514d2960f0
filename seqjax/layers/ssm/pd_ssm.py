"""PD-SSM: permutation times diagonal transitions (Terzic et al. 2025, arXiv:2509.22284).

    M_t = sum_k softmax(S x_t)_k A_k                    A_1 .. A_K [N, N], a learned dictionary
    P_t = the one-hot of the largest entry of each row of M_t
    D_t = sigmoid(a(x_t)) exp(2 pi i sigmoid(b(x_t)))   a, b: MLPs with gelu, `expansion` N wide
    h_t = Diag(D_t) P_t h_{t-1} + B x_t                 h complex [N], h_0 = (1, 0, .., 0)
    y_t = LayerNorm(W [Re h_t, Im h_t] + b + D x_t)

A step sends every entry of the state somewhere and turns it there: so one layer of N states follows
any automaton of N states (prop. 1), which diagonal transitions cannot, and products of such
matrices are such matrices. Useful where states are to be tracked: groups, automata, programs.

The rows of P are one-hot, as released: a gather. The paper writes P D with one-hot columns, its
transpose's order. Derivatives are straight through: those of softmax over the rows of M in place of
P's. For them the recurrence runs on whole matrices [N, N].
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.monoid import dense
from seqjax.nn.activations import gelu
from seqjax.nn.norms import Norm
from seqjax.nn.recurrent import Associative


def straight_through(M: jax.Array) -> jax.Array:
    """The one-hot of the largest entry of each row of M [N, N]; the derivative is softmax's."""
    soft = jax.nn.softmax(M, axis=-1)
    hard = jax.nn.one_hot(jnp.argmax(M, axis=-1), M.shape[-1], dtype=M.dtype)
    return soft + lax.stop_gradient(hard - soft)


class PDSSM(Associative):
    monoid = dense

    def __init__(
        self,
        features: int,
        *,
        state: int = 64,
        dictionary: int = 8,
        expansion: int = 2,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.state, inner = state, expansion * state

        def normal(*shape, size):
            return nnx.Param(jax.random.normal(rngs.params(), shape) * size**-0.5)

        self.S = nnx.Linear(features, dictionary, use_bias=False, rngs=rngs)
        self.A = normal(state, state, dictionary, size=state)
        self.a, self.b = (
            nnx.Sequential(
                nnx.Linear(features, inner, rngs=rngs), gelu, nnx.Linear(inner, state, rngs=rngs)
            )
            for _ in range(2)
        )
        self.B = normal(2, state, features, size=2 * state)
        self.W = nnx.Linear(2 * state, features, rngs=rngs)
        self.D = normal(features, size=features)
        self.norm = Norm(features, centre=True, bias=True, eps=1e-5)

    def initial(self):
        return jnp.zeros(self.state, complex).at[0].set(1)

    def lift(self, x):
        high = accumulation_dtype(x.dtype)
        share = jax.nn.softmax(self.S(x).astype(high))
        P = straight_through(jnp.einsum("nmk,k->nm", self.A[...].astype(high), share))

        size, turn = (jax.nn.sigmoid(mlp(x).astype(high)) for mlp in (self.a, self.b))
        angle = 2 * jnp.pi * turn
        A = lax.complex((size * jnp.cos(angle))[:, None] * P, (size * jnp.sin(angle))[:, None] * P)
        real, imag = ((B @ x).astype(high) for B in self.B[...])
        return A, lax.complex(real, imag)

    def readout(self, h, x):
        y = self.W(jnp.concatenate([h.real, h.imag]).astype(x.dtype))
        return self.norm(y + self.D[...] * x)
