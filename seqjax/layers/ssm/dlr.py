"""Diagonal linear RNN DLR (Gupta, Mehta & Berant 2022, arXiv:2212.00768).

    x_k = exp(Lambda) * x_{k-1} + u_k,   y_k = to_real(W x_k) + D u_k          x complex [N]
    K_l = to_real(sum_n W_n exp(Lambda_n l))
    Lambda = -Lambda_re^2 + i Lambda_im

A diagonal state space without a continuous time behind it: no time step, no B, no discretisation.
Lambda [N] is shared by all channels, W [features, N] is not. `to_real` is "real" (the paper's), and
as in the release "imag", "sum" (real plus imaginary part), or "prod", real times imaginary part,
which is Im(K^2) / 2 and so a linear recurrence over all sums of two eigenvalues: N (N + 1) / 2
states for it.

`undamped` takes Lambda_re out (|exp(Lambda)| = 1), `real_W` the imaginary part of W. Lambda starts
at -dt / 2 + 2 pi i n / N with dt log-uniform in [dt_min, dt_max] per state, W normal with
deviation 1 / N. The paper runs N = 4096.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from seqjax.layers.base import Precise, option
from seqjax.layers.ssm.s4d import DiagonalStateSpace, log_time_steps

TO_REAL = {"real": 1, "imag": -1j, "sum": 1 - 1j, "prod": -0.5j}  # Re(factor z), of z^2 for "prod"


class DLR(DiagonalStateSpace):
    def __init__(
        self,
        features: int,
        *,
        state: int = 4096,
        to_real: str = "real",
        undamped: bool = False,
        real_W: bool = False,
        dt_min: float = 1e-4,
        dt_max: float = 1e-1,
        mix: bool = True,
        rngs: nnx.Rngs,
    ):
        self.to_real = option("to_real", to_real, TO_REAL)
        self.N = state * (state + 1) // 2 if to_real == "prod" else state
        self.Lambda_im = Precise(2 * np.pi / state * jnp.arange(state, dtype=jnp.float32))
        dt = jnp.exp(log_time_steps(rngs, (state,), dt_min, dt_max))
        self.Lambda_re = None if undamped else Precise(jnp.sqrt(dt / 2))
        parts = 1 if real_W else 2
        self.W = Precise(jax.random.normal(rngs.params(), (parts, features, state)) / state)
        self.surround(features, mix, rngs)

    def system(self):
        imag, W = self.Lambda_im[...], self.W[...]
        real = jnp.zeros_like(imag) if self.Lambda_re is None else -jnp.square(self.Lambda_re[...])
        Lambda = lax.complex(real, imag)
        W = lax.complex(W[0], W[1] if len(W) == 2 else jnp.zeros_like(W[0]))
        if self.to_real == "prod":
            n, m = np.triu_indices(len(imag))
            Lambda = Lambda[n] + Lambda[m]
            twice = jnp.asarray(np.where(n == m, 1, 2), W.dtype)
            W = W[:, n] * W[:, m] * twice[None]
        C = W * jnp.asarray(TO_REAL[self.to_real], W.dtype)
        return Lambda, jnp.ones_like(C), C
