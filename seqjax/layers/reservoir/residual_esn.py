"""Residual echo state network (Ceni & Gallicchio 2025, Neurocomputing, S0925231224007379).

    h_t = alpha O h_{t-1} + beta tanh(W h_{t-1} + W_in x_t + b) = y_t       h [hidden]

A reservoir with an orthogonal residual branch O, by `skip` "random" (Q of a Gaussian matrix),
"cyclic" (each unit's value goes to the next) or "identity", which with alpha = 1 - beta is the
leaky ESN. Time passes through O without loss, so linear memory comes close to one step per unit:
useful where a readout needs the far past as much as it needs nonlinear features.

Everything is drawn once and `Frozen`, as in `esn`, whose options are explained there.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx

from seqjax.layers.reservoir.esn import Reservoir, per_unit
from seqjax.nn.base import Frozen, option
from seqjax.nn.initialisation import RECURRENT

SKIPS = {
    "random": RECURRENT["orthogonal"],
    "cyclic": lambda key, shape: jnp.roll(jnp.eye(*shape), 1, axis=0),
    "identity": RECURRENT["identity"],
}


class ResidualESN(Reservoir):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        skip: str = "random",
        alpha: float = 0.9,
        beta: float | Sequence[float] = 0.1,
        spectral_radius: float = 0.9,
        density: float = 1.0,
        law: str = "uniform",
        input_density: float = 1.0,
        input_scale: float = 1.0,
        input_law: str = "uniform",
        bias_scale: float = 0.0,
        feedback: int = 0,
        feedback_scale: float = 1.0,
        activation: str = "tanh",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            hidden=hidden,
            spectral_radius=spectral_radius,
            density=density,
            law=law,
            input_density=input_density,
            input_scale=input_scale,
            input_law=input_law,
            bias_scale=bias_scale,
            feedback=feedback,
            feedback_scale=feedback_scale,
            activation=activation,
            rngs=rngs,
        )
        H = self.out_features
        self.O = Frozen(SKIPS[option("skip", skip, SKIPS)](rngs.params(), (H, H)))
        self.alpha: Frozen | None = Frozen(jnp.array(alpha, float))
        self.beta = per_unit("beta", beta, H)

    def step(self, h, z):
        beta = self.beta[...]
        alpha = 1 - beta if self.alpha is None else self.alpha[...]
        return alpha * (self.O[...] @ h) + beta * self.excited(h, z)
