"""Unitary evolution recurrent network, uRNN (Arjovsky et al. 2016, arXiv:1511.06464).

    h_t = modReLU(W h_{t-1} + V x_t)                        h complex [hidden]          eq. 4
    W = D_3 R_2 F^{-1} D_2 P R_1 F D_1                                                  eq. 6
    modReLU(z) = z max(|z| + b, 0) / (|z| + 1e-5)                                       eq. 8

D_k = diag(exp(i theta_k)), F the unitary Fourier transform, P a fixed permutation, R_k the
reflection h - 2 (h . v) conj(v) / |v|^2 along v_k. W is unitary whatever its parameters, of which
there are 7 a unit, and is multiplied in hidden log(hidden): for memory over long times. As in the
release the product in R_k has no conjugate.

The state [2, hidden] holds real and imaginary part, of which the output [2 hidden] is made. theta
starts uniform in [-pi, pi], b within 0.01 of 0, V and v_k by Glorot's rule. The release also learns
the first state, as `learn_initial` does.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Frozen, Precise
from seqjax.nn.initialisation import within
from seqjax.nn.recurrent import Recurrent


class UnitaryRNN(Recurrent):
    def __init__(self, features: int, *, hidden: int | None = None, rngs: nnx.Rngs):
        self.features = features
        H = self.hidden = hidden or features
        self.out_features = 2 * H
        glorot = nnx.initializers.glorot_uniform()
        self.V = nnx.Linear(features, 2 * H, use_bias=False, kernel_init=glorot, rngs=rngs)
        self.theta = Precise(within(math.pi)(rngs.params(), (3, H)))
        # two vectors, real and imaginary part
        self.v = Precise(within((6 / (2 + 2 * H)) ** 0.5)(rngs.params(), (2, 2, H)))
        self.b = Precise(within(0.01)(rngs.params(), (H,)))
        self.P = Frozen(jax.random.permutation(rngs.params(), H))

    def initial(self):
        return jnp.zeros((2, self.hidden))

    def drive(self, x):
        return self.V(x).reshape(len(x), 2, self.hidden)

    def turned(self, h: jax.Array) -> jax.Array:
        """W h."""
        D = jax.lax.complex(jnp.cos(self.theta[...]), jnp.sin(self.theta[...]))
        h = reflected(jnp.fft.fft(D[0] * h, norm="ortho"), *self.v[0])
        h = jnp.fft.ifft(D[1] * h[self.P[...]], norm="ortho")
        return D[2] * reflected(h, *self.v[1])

    def step(self, h, z):
        z = z.astype(h.dtype)
        z = self.turned(jax.lax.complex(*h)) + jax.lax.complex(*z)
        size = jnp.abs(z)
        gain = jax.nn.relu(size + self.b) / (size + 1e-5)
        return jnp.stack([gain * z.real, gain * z.imag])

    def readout(self, h, x):
        return h.reshape(self.out_features)


def reflected(h: jax.Array, re: jax.Array, im: jax.Array) -> jax.Array:
    """h - 2 (h . v) conj(v) / |v|^2 for v = re + i im."""
    v = jax.lax.complex(re, im)
    share = jnp.sum(h * v) / jnp.sum(v * jnp.conj(v))
    return h - 2 * share * jnp.conj(v)
