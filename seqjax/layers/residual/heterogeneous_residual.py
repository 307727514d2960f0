"""Residual recurrent network whose units have strengths of their own (Dubinin & Effenberger 2023,
arXiv:2307.14823).

    h_t = alpha * h_{t-1} + beta * tanh(W h_{t-1} + U x_t + b) = y_t     h, alpha, beta [hidden]

alpha, the residual, is how much a unit keeps by itself: its time scale is -1 / log alpha steps.
Units of many alphas have many time scales, which is the paper's finding: near 1, a memory that
fades slowly, at the edge of chaos. alpha starts uniform in [r_min, r_max], beta at 1 - alpha, so
that |h| <= 1 while they stay there. `reservoir`: no weight is trained, as in an echo state network
(`esn`), and only what reads y learns. W starts by `recurrent_init` times `recurrent_scale`.

The paper's letters and forms differ (its residual may also rotate pairs of units, which is not
here); the equation is our reading of its heterogeneous one.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Frozen, Precise
from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent


class HeterogeneousResidual(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        r_min: float = 0.0,
        r_max: float = 1.0,
        reservoir: bool = False,
        recurrent_init: str = "orthogonal",
        recurrent_scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        weight, strength = (Frozen, Frozen) if reservoir else (nnx.Param, Precise)
        W = recurrent_weights(H, init=recurrent_init, scale=recurrent_scale, rngs=rngs)
        U = nnx.initializers.lecun_normal(in_axis=1, out_axis=0)(rngs.params(), (H, features))
        alpha = jax.random.uniform(rngs.params(), (H,), minval=r_min, maxval=r_max)
        self.W, self.U, self.b = weight(W), weight(U), weight(jnp.zeros(H))
        self.alpha, self.beta = strength(alpha), strength(1 - alpha)

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return x @ self.U.T + self.b[None]

    def step(self, h, z):
        return self.alpha * h + self.beta * jnp.tanh(z + self.W @ h)
