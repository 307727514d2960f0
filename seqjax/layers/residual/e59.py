"""E59, residual recurrence (the elman project's "highway Elman").

    u_t = silu(P x_t)                                                    u, h [expansion features]
    h_t = h_{t-1} + alpha (W u_t + b)                                    form "pure"  (E59)
    h_t = h_{t-1} + sigmoid(W_g u_t + b_g) * (W u_t + b)                 form "gated" (E59b)
    h_t = h_{t-1} + alpha (W u_t + b) + beta V h_{t-1}                   form "mixed" (E59c)
    y_t = Q (h_t * silu(h_t))

The past enters by the identity; the nonlinearity is at the output only. So "pure" and "gated" are
sums over time, which the sum monoid evaluates, and dh_T/dh_0 = I for every T, the theorem of the
project's report (its sec. 2.1): what was written is kept, and its gradient with it. h grows with T.

The project's code does not run this form but another, here `norm=True`: h_t = norm(of the same),
norm(v) = v / sqrt(mean(v^2) + 1e-6). It keeps h bounded and loses the theorem: each step shrinks
the past by the length that norm takes away, and dh_T/dh_0 goes to zero exponentially in T.

alpha = exp(log_alpha) starts at 0.1; beta = sigmoid(log_beta) / 10 with log_beta starting at
log(0.01); b_g starts at -2 (small gates). P, W, W_g, Q start by Xavier's rule, V at an orthogonal
matrix times 0.01. All as in the project's code; its optional convolution is not here.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.monoid import total
from seqjax.core.scan import scan
from seqjax.nn.base import Precise, option
from seqjax.nn.recurrent import Recurrent

FORMS = ("pure", "gated", "mixed")


class E59(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        form: str = "pure",
        norm: bool = False,
        expansion: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.form, self.norm = option("form", form, FORMS), norm
        self.hidden = H = int(features * expansion)
        self.additive = not norm and form != "mixed"
        if self.additive:
            self.ops = ("sum",)

        def linear(n, m, **options):
            xavier = nnx.initializers.xavier_uniform()
            return nnx.Linear(n, m, kernel_init=xavier, rngs=rngs, **options)

        self.P, self.Q = linear(features, H, use_bias=False), linear(H, features, use_bias=False)
        self.W = linear(H, H)  # carries b
        if form == "gated":
            self.W_g = linear(H, H, bias_init=nnx.initializers.constant(-2.0))
        else:
            self.log_alpha = Precise(jnp.log(0.1))
        if form == "mixed":
            self.log_beta = Precise(jnp.log(0.01))
            self.V = nnx.Param(0.01 * nnx.initializers.orthogonal()(rngs.params(), (H, H)))

    def initial(self):
        return jnp.zeros(self.hidden)

    def drive(self, x):
        u = jax.nn.silu(self.P(x))
        gain = jax.nn.sigmoid(self.W_g(u)) if self.form == "gated" else jnp.exp(self.log_alpha[...])
        return gain * self.W(u)

    def step(self, h, z):
        h_new = h + z
        if self.form == "mixed":
            h_new = h_new + jax.nn.sigmoid(self.log_beta[...]) / 10 * (self.V[...] @ h)
        return h_new * jax.lax.rsqrt(jnp.mean(h_new**2) + 1e-6) if self.norm else h_new

    def states(self, x, h, flow):
        if not self.additive:
            return super().states(x, h, flow)
        return scan(total, self.drive(x).astype(h.now.dtype), h, flow=flow)

    def readout(self, h, x):
        return self.Q(h * jax.nn.silu(h))
