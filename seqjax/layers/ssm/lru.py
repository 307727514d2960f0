"""Linear recurrent unit (Orvieto et al. 2023, arXiv:2303.06349).

    h_t = lambda * h_{t-1} + gamma * (B x_t)        h complex [state]          eq. 7
    y_t = Re(C h_t) + D x_t                                                    eq. 1

    lambda = exp(-exp(nu_log) + i exp(theta_log)),  |lambda| < 1               sec. 3.3
    gamma = sqrt(1 - |lambda|^2) at the start, then learned as gamma_log       eq. 7

|lambda| is drawn uniformly (by area) on the ring [r_min, r_max], the phase on [0, max_phase]. What
the paper's ablations take away are options: without `exp_param` lambda = exp(-nu + i theta), which
training may move out of the unit disk, and without `gamma_norm` gamma = 1.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.core.monoid import diagonal
from seqjax.nn.base import Group, Precise
from seqjax.nn.recurrent import Associative


class LRU(Associative):
    monoid = diagonal
    # Smaller rate and no decay for the recurrence and B; 0.5 is what the release of
    # arXiv:2305.15947 has for lr_factor.
    trained = dict.fromkeys(
        ("nu_log", "nu", "theta_log", "theta", "gamma_log", "B"), Group(rate=0.5, decay=0.0)
    )

    def __init__(
        self,
        features: int,
        *,
        state: int | None = None,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 6.283185307179586,
        exp_param: bool = True,
        gamma_norm: bool = True,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        N = self.state = state or features
        u1, u2 = (jax.random.uniform(rngs.params(), (N,)) for _ in range(2))
        modulus2 = r_min**2 + u1 * (r_max**2 - r_min**2)
        nu = -0.5 * jnp.log(jnp.maximum(modulus2, 1e-8))
        theta = jnp.maximum(max_phase * u2, 1e-8)
        self.exp_param = exp_param
        if exp_param:
            self.nu_log, self.theta_log = Precise(jnp.log(nu)), Precise(jnp.log(theta))
        else:
            self.nu, self.theta = Precise(nu), Precise(theta)
        gamma_log = 0.5 * jnp.log1p(-jnp.minimum(modulus2, 1 - 1e-6))
        self.gamma_log = Precise(gamma_log) if gamma_norm else None
        glorot = lambda n, m, scale: nnx.Param(  # noqa: E731  [2, n, m]: real and imaginary part
            jax.random.normal(rngs.params(), (2, n, m)) / jnp.sqrt(scale * m)
        )
        self.B, self.C = glorot(N, features, 2), glorot(features, N, 1)
        self.D = nnx.Param(jax.random.normal(rngs.params(), (features,)))

    def initial(self):
        return jnp.zeros(self.state, complex)

    def eigenvalues(self):
        """lambda [state]."""
        if self.exp_param:
            nu, theta = jnp.exp(self.nu_log[...]), jnp.exp(self.theta_log[...])
        else:
            nu, theta = self.nu[...], self.theta[...]
        return jnp.exp(lax.complex(-nu, theta))

    def lift(self, x):
        lam, (B_re, B_im) = self.eigenvalues(), self.B[...]
        log = self.gamma_log
        gamma = jnp.ones_like(lam.real) if log is None else jnp.exp(log[...])
        return lam, lax.complex(gamma * (B_re @ x), gamma * (B_im @ x))

    def readout(self, h, x):
        C_re, C_im = self.C[...]
        return C_re @ h.real - C_im @ h.imag + self.D[...] * x
