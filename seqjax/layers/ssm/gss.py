"""Gated state space (Mehta et al. 2022, arXiv:2206.13947), the layer of its pseudocode.

    n = LN(x)
    u = gelu(W_u n)  [hidden],   v = LN(gelu(W_v n))  [reduced]
    h_k = exp(Lambda) * h_{k-1} + v_k                     per channel, complex [reduced, state]
    z_k = Re(C s h_k) + D v_k,   s = (exp(Lambda) - 1) / Lambda
    y = x + W_o (u * W_g z) + b_o                         the residual is part of the layer

The recurrence is DSS (2203.14343) made simpler: a time step of 1, Lambda = -exp(.) + i exp(.)
shared by all channels and drawn at random, no softmax. It runs on few channels (`reduced`), for
its cost is in their number; the width is in the gate. The states are not halves of conjugate
pairs: no factor 2. By default hidden = 4 features and reduced = features / 4. `imag_exp=False`
takes the imaginary part as it is. Lambda, C and D start standard normal.

Evaluators: those of `diagonal_ssm`; "fft" is the form the paper trains with. No code was released.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.nn.activations import gelu
from seqjax.nn.base import Layer, Precise
from seqjax.nn.norms import Norm
from seqjax.ops.diagonal_ssm import diagonal_ssm


class GSS(Layer):
    block = True
    ops = ("diagonal_ssm",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        reduced: int | None = None,
        state: int = 512,
        imag_exp: bool = True,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.hidden, self.reduced = hidden or 4 * features, reduced or max(1, features // 4)
        self.imag_exp = imag_exp

        def linear(n, m, bias=False):
            return nnx.Linear(n, m, use_bias=bias, rngs=rngs)

        def normal(*shape):
            return jax.random.normal(rngs.params(), shape)

        self.W_u, self.W_v = linear(features, self.hidden), linear(features, self.reduced)
        self.W_g, self.W_o = linear(self.reduced, self.hidden), linear(self.hidden, features, True)
        self.norm = Norm(features, centre=True, bias=True, eps=1e-5)
        self.norm_v = Norm(self.reduced, centre=True, bias=True, eps=1e-5)
        self.Lambda, self.C = Precise(normal(2, state)), Precise(normal(2, self.reduced, state))
        self.D = nnx.Param(normal(self.reduced))

    def initial(self):
        return jnp.zeros(self.C.shape[1:], jnp.complex64)

    def system(self):
        """Lambda [state], B and C [reduced, state]."""
        re, im = self.Lambda[...]
        Lambda = lax.complex(-jnp.exp(re), jnp.exp(im) if self.imag_exp else im)
        C = lax.complex(*self.C[...]) * (jnp.expm1(Lambda) / Lambda)[None]
        return Lambda, jnp.ones_like(C), C

    def run(self, x, h, flow):
        n = self.norm(x)
        v = self.norm_v(gelu(self.W_v(n)))
        z, h = diagonal_ssm(
            v,
            *self.system(),
            h,
            flow=flow,
        )
        z = z.astype(x.dtype) + self.D[...][None] * v
        return x + self.W_o(gelu(self.W_u(n)) * self.W_g(z)), h
