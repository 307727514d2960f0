"""Log-polynomial recurrence (the elman project's "log-space polynomial Elman"; elman-proofs names
it, log|h_t| = alpha log|v_t|).

    u_t = P x_t                                                          u, h [expansion features]
    v_t = r * h_{t-1} + sign(W u_t) sqrt((W u_t)^2 + 1e-12),   r = min(exp(log_r), exp(-0.1))
    a_t = 1 + min(softplus(W_a u_t + b_a), 1)                            the exponent, in (1, 2]
    n_t = sign(v_t) |v_t|^a_t / (1 + |v_t|^a_t)
    h_t = (1 - d_t) * h_{t-1} + d_t * n_t,   d_t = sigmoid(W_d u_t + b_d)
    k_t = gamma * h_t / rms(h_t)
    y_t = Q (softmax(k_t in `groups`) * silu(V k_t))

A power of v in place of a tanh: log|v| is multiplied by a_t, a slope that does not vanish however
large v is, until the quotient bounds it by 1. The recurrence is diagonal. The project keeps h as
log|h| and sign(h), and adds in logarithms; these are ways of computing, and this file has the
meaning: what it clips there (a log of 0 at -40, a near cancellation at 1e-4) is not clipped here.
rms(h) = sqrt(mean(h^2) + 1e-12), which at h = 0 gives 0, as there.

log_r starts at -2, b_a at 0, b_d at -2, gamma at 1; matrices by Xavier's rule, W and V times 1/2,
W_a and W_d times 1/10. The project's code has no bias in v, and we none.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Precise
from seqjax.nn.recurrent import Recurrent


class LogPolynomial(Recurrent):
    jacobian = "diagonal"

    def __init__(self, features: int, *, expansion: float = 1.0, groups: int = 1, rngs: nnx.Rngs):
        self.features = self.out_features = features
        H = self.hidden = int(features * expansion)
        if H % groups:
            raise ValueError(f"groups must divide the {H} units, got {groups}")
        self.groups = groups

        def linear(n, m, gain=1.0, **options):
            xavier = nnx.initializers.variance_scaling(gain**2, "fan_avg", "uniform")
            return nnx.Linear(n, m, kernel_init=xavier, rngs=rngs, **options)

        def start(value):
            return nnx.initializers.constant(value)

        self.P, self.W = (
            linear(n, H, gain, use_bias=False) for n, gain in ((features, 1.0), (H, 0.5))
        )
        self.W_a, self.W_d = (linear(H, H, 0.1, bias_init=start(b)) for b in (0.0, -2.0))
        self.V, self.Q = (
            linear(H, m, gain, use_bias=False) for m, gain in ((H, 0.5), (features, 1.0))
        )
        self.log_r, self.gamma = Precise(jnp.full(H, -2.0)), Precise(jnp.ones(H))

    def initial(self):
        return jnp.zeros(self.hidden)

    def drive(self, x):
        u = self.P(x)
        w = self.W(u)
        v = jnp.where(w < 0, -1, 1) * jnp.sqrt(w * w + 1e-12)
        return v, 1 + jnp.minimum(jax.nn.softplus(self.W_a(u)), 1), jax.nn.sigmoid(self.W_d(u))

    def step(self, h, z):
        v, a, d = z
        v = jnp.exp(jnp.minimum(self.log_r[...], -0.1)) * h + v
        zero = v == 0
        log_n = a * jnp.log(jnp.where(zero, 1, jnp.abs(v)))
        n = jnp.where(zero, 0, jnp.sign(v) * jax.nn.sigmoid(log_n))  # u / (1 + u), u = |v|^a
        return h + d * (n - h)

    def readout(self, h, x):
        k = self.gamma * h * jax.lax.rsqrt(jnp.mean(h * h) + 1e-12)
        chosen = jax.nn.softmax(k.reshape(self.groups, -1), axis=-1).reshape(-1)
        return self.Q(chosen * jax.nn.silu(self.V(k)))
