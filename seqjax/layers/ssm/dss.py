"""Diagonal state spaces DSS (Gupta, Gu & Berant 2022, arXiv:2203.14343).

    K_l = Re sum_n W_n s_n exp(dt Lambda_n l),   y = K * u + D u           prop. 1
    s_n = (exp(dt Lambda_n) - 1) / Lambda_n                                "exp"
    s_n = (exp(dt Lambda_n) - 1) / ((exp(dt Lambda_n L) - 1) Lambda_n)     "softmax"

as a recurrence: h_k = exp(dt Lambda) h_{k-1} + u_k, y_k = Re(W s h_k). Lambda [N] is shared by all
channels, W [features, N] and dt [features] are not. The N complex states are not halves of
conjugate pairs: the real part is taken without a factor 2.

"exp" is S4D with one spectrum for all channels: Lambda = -exp(.) + i Im. "softmax" divides by the
sum over a length L, a softmax over positions: Lambda is free, and a mode that grows counts from
the far end (its kernel is 1 at l = L - 1). There 1/z is conj(z) / (|z|^2 + 1e-7), as in the
release. Of its further versions, "clip" is "exp" with a free Lambda whose real part is at most
1e-4, "exp-re-im" is "exp" with the imaginary part in the form exp(.) as well, hence positive, and
"exp-no-scale" and "clip-no-scale" have s = 1.

The paper's L is the length of the sequence at hand; a stream has none, so ours is the option
`length`. What grows overflows where exp(dt Re(Lambda) L) does.

With `separate_dt` (the release's choice) Re and Im of Lambda have a dt each. Lambda starts at the
N eigenvalues with positive imaginary part of the normal part of a HiPPO-LegS matrix of size 2 N,
W complex normal, dt log-uniform. The default is "exp", whose kernel knows of no length.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from seqjax.layers.ssm.s4d import DiagonalStateSpace, legs_spectrum, log_time_steps
from seqjax.nn.base import Precise, option

VERSIONS = ("exp", "exp-re-im", "exp-no-scale", "clip", "clip-no-scale", "softmax")
EPSILON, MOST_GROWTH = 1e-7, 1e-4


class DSS(DiagonalStateSpace):
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        state: int = 64,
        version: str = "exp",
        length: int = 1024,
        separate_dt: bool = True,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        mix: bool = True,
        rngs: nnx.Rngs,
    ):
        self.N, self.length = state, length
        self.version = option("version", version, VERSIONS)
        spectrum = legs_spectrum(2 * state)
        real = np.log(-np.real(spectrum)) if "exp" in version else np.real(spectrum)
        imag = np.log(np.imag(spectrum)) if version == "exp-re-im" else np.imag(spectrum)
        self.Lambda = Precise(jnp.asarray(np.stack([real, imag])))
        log_dt = log_time_steps(rngs, (1, features), dt_min, dt_max)
        self.log_dt = Precise(jnp.tile(log_dt, (1 + separate_dt, 1)))
        self.W = Precise(jax.random.normal(rngs.params(), (2, features, state)))
        self.surround(features, mix, rngs)

    def system(self):
        real, imag = self.Lambda[...]
        if "exp" in self.version:
            real = -jnp.exp(real)
        elif "clip" in self.version:
            real = jnp.minimum(real, MOST_GROWTH)
        imag = jnp.exp(imag) if self.version == "exp-re-im" else imag
        dt = jnp.exp(self.log_dt[...])
        z = lax.complex(dt[0][:, None] * real[None], dt[-1][:, None] * imag[None])
        Lambda = lax.complex(real, imag)[None]
        if "no-scale" in self.version:
            s = jnp.ones_like(z)
        elif self.version == "softmax":
            s = self.softmax_scale(z, Lambda)
        else:
            s = jnp.expm1(z) * over(Lambda, jnp.maximum(squared(Lambda), EPSILON))
        return z, jnp.ones_like(z), lax.complex(*self.W[...]) * s

    def softmax_scale(self, z, Lambda):
        """One over the sum of exp(z l) over the length, with growing modes counted from its end."""
        grows = Lambda.real > 0
        down = jnp.where(grows, -z, z)
        total = jnp.expm1(down * self.length) * Lambda
        s = jnp.expm1(down) * over(total, squared(total) + EPSILON)
        return s * jnp.exp(jnp.where(grows, -z * (self.length - 1), 0))


def squared(z):
    return z.real**2 + z.imag**2


def over(z, square):
    """1 / z, given |z|^2 or what stands in for it near zero."""
    return lax.complex(z.real / square, -z.imag / square)
