"""AntisymmetricRNN (Chang et al. 2019, arXiv:1902.09689).

    h_t = h_{t-1} + dt tanh((W - W^T - gamma I) h_{t-1} + V x_t + b) = y_t              eq. 10

An Euler step dt (the paper's epsilon) of an equation whose Jacobian has eigenvalues of small real
part: what is stored neither grows nor fades at first, and a diffusion gamma keeps the step stable.
For long sequences, at half the parameters of a recurrent matrix.

`gated`: the tanh is multiplied by z_t = sigmoid((W - W^T - gamma I) h_{t-1} + V_z x_t + b_z), with
the same matrix (eq. 13, 14). What is trained of W is all that counts, its part above the diagonal;
W starts normal at variance 1 / hidden, V at 1 / features.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.constrained.skew import above, from_upper
from seqjax.nn.recurrent import Recurrent


class AntisymmetricRNN(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        dt: float = 0.1,
        gamma: float = 0.1,
        gated: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.dt, self.gamma, self.gated = dt, gamma, gated
        self.V = nnx.Linear(features, H * (1 + gated), rngs=rngs)  # carries b, and V_z and b_z
        W = H**-0.5 * jax.random.normal(rngs.params(), (H, H))
        self.skew = nnx.Param(above(W - W.T))

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.V(x)

    def shared(self):
        S = from_upper(self.skew[...], self.out_features)
        return S - self.gamma * jnp.eye(len(S), dtype=S.dtype)

    def step(self, h, z, S=None):
        seen = (self.shared() if S is None else S) @ h
        z, *gate = jnp.split(z, 1 + self.gated)
        new = jnp.tanh(seen + z)
        return h + self.dt * (new * jax.nn.sigmoid(seen + gate[0]) if gate else new)
