"""Undamped independent oscillators, UnICORNN (Rusch & Mishra 2021, arXiv:2103.05487).

    z_n = z_{n-1} - dt sigmoid(c) * (tanh(w * y_{n-1} + V u_n + b) + alpha y_{n-1})
    y_n = y_{n-1} + dt sigmoid(c) * z_n                                        c, w [hidden]

A symplectic Euler step of a Hamiltonian system, one oscillator a unit, which can be run backwards;
its gradients neither vanish nor explode. Units see each other through the layers above only: some
of them `stacked` are the network of the paper, for very long sequences. dt sigmoid(c) is the time
step of a unit, learned.

The state [hidden, 2] holds y and z of each unit, so dh_n/dh_{n-1} has one 2 x 2 block a unit. As
released, w starts uniform in [0, 1], c within 0.1 of 0, V in the range of Kaiming's rule at a slope
of 8, b at 0. The release's own backward pass gives the initial states no gradient; here they have
theirs. Its dropout, the same at all steps, is not here.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Precise
from seqjax.nn.initialisation import within
from seqjax.nn.recurrent import Recurrent


class UnICORNN(Recurrent):
    jacobian = "block_diagonal"

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        dt: float = 0.2,
        alpha: float = 0.9,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.dt, self.alpha = dt, alpha
        kaiming = within((6 / (65 * features)) ** 0.5)  # 1 + 8^2
        self.V = nnx.Linear(features, H, kernel_init=kaiming, rngs=rngs)  # carries b
        self.w = Precise(jax.random.uniform(rngs.params(), (H,)))
        self.c = Precise(within(0.1)(rngs.params(), (H,)))

    def initial(self):
        return jnp.zeros((self.out_features, 2))

    def drive(self, x):
        return self.V(x)

    def step(self, h, z):
        (y, velocity), ds = h.T, self.dt * jax.nn.sigmoid(self.c[...])
        velocity = velocity - ds * (jnp.tanh(self.w * y + z) + self.alpha * y)
        return jnp.stack([y + ds * velocity, velocity], axis=1)

    def readout(self, h, x):
        return h[:, 0]
