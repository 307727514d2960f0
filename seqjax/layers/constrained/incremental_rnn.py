"""Incremental recurrent network, iRNN (Kag et al. 2020, ICLR).

    g_k = g_{k-1} + eta_k (tanh(U (g_{k-1} + h_{t-1}) + W x_t + b) - alpha (g_{k-1} + h_{t-1}))
    h_t = g_K = y_t,   g_0 = 0                                      h [hidden], k = 1..K

K (`substeps`) Euler steps towards an equilibrium, each with a length eta_k that is learned; the
state is the increment that led there. With `substeps` None it is the equilibrium itself,

    tanh(U s + W x_t + b) = alpha s,   h_t = s - h_{t-1}

found by Newton's method, with the derivatives of the implicit function theorem. There
dh_t/dh_{t-1} = -I: gradients neither vanish nor explode, for dependencies over long times.

No release was found: this is the paper's equation. eta_k starts at `dt`, U as torch has it.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.nn.base import Precise
from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent


class IncrementalRNN(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        substeps: int | None = 5,
        alpha: float = 1.0,
        dt: float = 0.5,
        iterations: int = 20,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.alpha, self.iterations = alpha, iterations
        self.W = nnx.Linear(features, H, rngs=rngs)  # carries b
        self.U = nnx.Param(recurrent_weights(H, init="uniform", rngs=rngs))
        self.eta = None if substeps is None else Precise(jnp.full(substeps, dt))
        if substeps is None:
            self.loops = ("sequential",)  # the others' derivatives do not pass through a root

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.W(x)

    def step(self, h, z):
        z = z.astype(h.dtype)

        def pull(s):
            return jnp.tanh(self.U @ s + z).astype(s.dtype) - self.alpha * s

        if self.eta is None:
            return root(pull, jnp.zeros_like(h), self.iterations) - h
        g = jnp.zeros_like(h)
        for eta in self.eta[...]:
            g = g + eta * pull(g + h)
        return g


def root(f, s: jax.Array, iterations: int) -> jax.Array:
    """A root of f near s by Newton's method; its derivatives are those of the implicit function."""

    def solve(f, s):
        def improve(_, s):
            return s - jnp.linalg.solve(jax.jacfwd(f)(s), f(s))

        return lax.fori_loop(0, iterations, improve, s)

    def tangent(linear, y):
        return jnp.linalg.solve(jax.jacfwd(linear)(jnp.zeros_like(y)), y)

    return lax.custom_root(f, s, solve, tangent)
