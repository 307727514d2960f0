"""Diagonal linear RNN DLR (Gupta, Mehta & Berant 2022, arXiv:2212.00768).

    x_k = exp(Lambda) * x_{k-1} + u_k,   y_k = to_real(W x_k) + D u_k          x complex [N]
    K_l = to_real(sum_n W_n exp(Lambda_n l))
    Lambda = -Lambda_re^2 + i Lambda_im

A diagonal state space without a continuous time behind it: no time step, no B, no discretisation.
Lambda [N] is shared by all channels, W [features, N] is not. `to_real` is "real" (the paper's), and
as in the release "imag", "sum" (real plus imaginary part), or "prod", real times imaginary part,
which is Im(K^2) / 2 and so a linear recurrence over all sums of two eigenvalues: N (N + 1) / 2
states for it. "real-prod" is "real" for the first half of the channels and "prod" for the others.

`undamped` takes Lambda_re out (|exp(Lambda)| = 1), `real_Lambda` takes Lambda_im out, `real_W` the
imaginary part of W. Lambda starts at -dt / 2 + 2 pi i n / N with dt log-uniform in
[dt_min, dt_max] per state, W normal with deviation 1 / N. The paper runs
N = 4096, at which every channel carries as many complex numbers; the default is 64, as of S4D.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from seqjax.layers.ssm.s4d import DiagonalStateSpace, log_time_steps
from seqjax.nn.base import Precise, option

TO_REAL = {"real": 1, "imag": -1j, "sum": 1 - 1j, "prod": -0.5j}  # Re(factor z), of z^2 for "prod"
KINDS = (*TO_REAL, "real-prod")


class DLR(DiagonalStateSpace):
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        state: int = 64,
        to_real: str = "real",
        undamped: bool = False,
        real_Lambda: bool = False,
        real_W: bool = False,
        dt_min: float = 1e-4,
        dt_max: float = 1e-1,
        mix: bool = True,
        rngs: nnx.Rngs,
    ):
        if undamped and real_Lambda:
            raise ValueError("at most one of undamped and real_Lambda: both leave nothing of it")
        self.to_real = option("to_real", to_real, KINDS)
        self.N = state * (state + 1) // 2 if "prod" in to_real else state
        turns = 2 * np.pi / state * jnp.arange(state, dtype=jnp.float32)
        self.Lambda_im = None if real_Lambda else Precise(turns)
        dt = jnp.exp(log_time_steps(rngs, (state,), dt_min, dt_max))
        self.Lambda_re = None if undamped else Precise(jnp.sqrt(dt / 2))
        parts = 1 if real_W else 2
        self.W = Precise(jax.random.normal(rngs.params(), (parts, features, state)) / state)
        self.surround(features, mix, rngs)

    def system(self):
        W, none = self.W[...], jnp.zeros(self.W.shape[2], self.W.dtype)
        real = none if self.Lambda_re is None else -jnp.square(self.Lambda_re[...])
        Lambda = lax.complex(real, none if self.Lambda_im is None else self.Lambda_im[...])
        W = lax.complex(W[0], W[1] if len(W) == 2 else jnp.zeros_like(W[0]))
        if "prod" not in self.to_real:
            C = W * jnp.asarray(TO_REAL[self.to_real], W.dtype)
            return Lambda, jnp.ones_like(C), C
        n, m = np.triu_indices(len(none))
        twice = jnp.asarray(np.where(n == m, 1, 2) * TO_REAL["prod"], W.dtype)
        sums, products = Lambda[n] + Lambda[m], W[:, n] * W[:, m] * twice[None]
        if self.to_real == "prod":
            return sums, jnp.ones_like(products), products
        # Channels of "real" leave all states but the first N alone.
        spare = len(n) - len(none)
        first = jnp.arange(self.features)[:, None] < self.features // 2
        used = jnp.pad(jnp.ones_like(W), ((0, 0), (0, spare)))
        return (
            jnp.where(first, jnp.pad(Lambda, (0, spare))[None], sums[None]),
            jnp.where(first, used, 1),
            jnp.where(first, jnp.pad(W, ((0, 0), (0, spare))), products),
        )
