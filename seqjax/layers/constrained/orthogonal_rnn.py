"""Orthogonal recurrent networks: expRNN (Lezcano-Casado & Martínez-Rubio 2019, arXiv:1901.08428),
scoRNN (Helfrich et al. 2018, arXiv:1707.09520) and steps on the manifold (Wisdom et al. 2016,
arXiv:1611.00035).

    h_t = f(W x_t + Q h_{t-1}) = y_t,   Q^T Q = I                                  h [hidden]
    exp       Q = exp(S),               S^T = -S                        1901.08428 eq. 2
    cayley    Q = D (I + S)^{-1} (I - S)                                1707.09520 eq. 3
    stiefel   Q <- (I + A/2)^{-1} (I - A/2) Q,   A = G Q^T - Q G^T  1611.00035 eq. 8, 9
    modrelu   f(z) = sign(z) max(|z| + b, 0)

Q keeps lengths, so that gradients through it neither vanish nor explode: for copying over long
times. With "exp" and "cayley" it is made of the numbers above the diagonal of S, which any
optimiser may move: the constraint holds by itself. D is the identity with `negative` of its entries
-1, which brings the eigenvalue -1 near, that Cayley's map alone does not have; the exponential
needs none. With "stiefel" Q is what is trained, and an update that would take G from it turns it
instead (`seqjax.train.optimiser.moved`): G is the rate times the direction of the optimiser, whose
moments are of dL/dQ (the paper: RMSprop). Every rotation is within reach, and a step has no
exponential to differentiate. With another `activation` b is a bias inside it.

S starts as 2 x 2 blocks, of rotations by angles uniform in [-pi, pi] with "exp" and "stiefel", and
in [0, pi / 2] with "cayley"; b within 0.01 of 0, W by Kaiming's rule. The papers of S train it at a
tenth of the rate (`trained`). The releases multiply rows, h^T B, where B = Q^T. Of expRNN's release
the change of base during training is not here: the base is I.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.elman import ACTIVATIONS
from seqjax.layers.constrained.skew import blocks, cayley, exponential, from_upper
from seqjax.nn.base import Group, Orthogonal, Precise, option
from seqjax.nn.initialisation import within
from seqjax.nn.recurrent import Recurrent

MAPS = {"exp": exponential, "cayley": cayley}
KINDS = (*MAPS, "stiefel")


def modrelu(z: jax.Array, b: jax.Array) -> jax.Array:
    """sign(z) max(|z| + b, 0)."""
    return jnp.sign(z) * jax.nn.relu(jnp.abs(z) + b)


class OrthogonalRNN(Recurrent):
    trained: ClassVar = {"skew": Group(0.1, 0.0)}

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        parametrisation: str = "exp",
        negative: int = 0,
        activation: str = "modrelu",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.parametrisation = option("parametrisation", parametrisation, KINDS)
        self.activation = option("activation", activation, ("modrelu", *ACTIVATIONS))
        if negative > H:
            raise ValueError(f"of {H} entries, {negative} cannot be negative")
        self.negative = negative
        kaiming = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
        self.W = nnx.Linear(features, H, use_bias=False, kernel_init=kaiming, rngs=rngs)
        self.b = Precise(within(0.01)(rngs.params(), (H,)))
        if parametrisation != "cayley":
            angles = within(math.pi)(rngs.params(), (H // 2,))
        else:  # tan(angle / 2) for an angle
            angles = jnp.tan(math.pi / 4 * jax.random.uniform(rngs.params(), (H // 2,)))
        skew = blocks(angles, H)
        if parametrisation == "stiefel":
            self.Q = Orthogonal(exponential(from_upper(skew, H)))
        else:
            self.skew = Precise(skew)

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.W(x)

    def shared(self):
        """Q."""
        if self.parametrisation == "stiefel":
            Q = self.Q[...]
        else:
            Q = MAPS[self.parametrisation](from_upper(self.skew[...], self.out_features))
        kept = self.out_features - self.negative
        return jnp.concatenate([Q[:kept], -Q[kept:]]) if self.negative else Q

    def step(self, h, z, Q=None):
        z = z + (self.shared() if Q is None else Q) @ h
        if self.activation == "modrelu":
            return modrelu(z, self.b[...])
        return ACTIVATIONS[self.activation](z + self.b[...])
