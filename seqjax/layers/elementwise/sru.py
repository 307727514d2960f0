"""Simple recurrent unit (Lei et al. 2018, arXiv:1709.02755).

    f_t = sigmoid(W_f x_t + v_f * c_{t-1} + b_f)
    c_t = f_t * c_{t-1} + (1 - f_t) * (W x_t)                  c [hidden]
    r_t = sigmoid(W_r x_t + v_r * c_{t-1} + b_r)
    h_t = r_t * g(c_t) + (1 - r_t) * alpha x_t = y_t           g the identity

Both gates see the cell before it moves; the dependence is element-wise, so dc_t/dc_{t-1} is
diagonal. If hidden is not features the highway carries W' x_t instead of alpha x_t.
alpha = sqrt(1 + 2 exp(b_r)), of the b_r at the start (`highway_bias`), keeps the variance of h
that of x; it is not trained. Blocks of W: W, W_f, W_r, W'.

activation: g may be tanh, as in the first version. highway False: h = r * g(c). norm: a LayerNorm
on what W reads, not on the highway. rank: W = a product of two matrices of that rank. eigenvalues
"[-1,1]": the f_t that multiplies c_{t-1} becomes 2 f_t - 1 (arXiv:2411.12537; an eigenvalue where
v_f = 0). Initialised as the released code does: W of variance 1 / fan-in, halved for the gates, v
of variance 1/2.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.base import Frozen, Layer, Precise, Recurrent, entering, option
from seqjax.layers.gates import EIGENVALUES, multiplier
from seqjax.layers.parts import Norm

ACTIVATIONS = {"linear": lambda c: c, "tanh": jnp.tanh}


def uniform(variance: float, shape, rngs: nnx.Rngs):
    bound = (3 * variance) ** 0.5
    return jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)


class Cells(Recurrent):
    """c_t for the pairs (W x_t, W_f x_t) stacked to [2 * hidden], and the gate r."""

    jacobian = "diagonal"

    def __init__(self, hidden: int, highway_bias: float, eigenvalues: str, rngs: nnx.Rngs):
        self.features, self.out_features = 2 * hidden, hidden
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.v = nnx.Param(uniform(0.5, (2, hidden), rngs))  # f, r
        self.b = Precise(jnp.zeros((2, hidden)).at[1].set(highway_bias))

    def initial(self):
        return jnp.zeros(self.out_features)

    def gate(self, which, z, c):
        axes = (None,) * (z.ndim - 1)
        return jax.nn.sigmoid(z + self.v[...][which][axes] * c + self.b[...][which][axes])

    def step(self, c, z):
        z, f = jnp.split(z, 2)
        f = self.gate(0, f, c)
        return multiplier(f, self.eigenvalues) * c + (1 - f) * z


class SRU(Layer):
    evaluators = Cells.evaluators

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        activation: str = "linear",
        highway: bool = True,
        highway_bias: float = 0.0,
        norm: bool = False,
        rank: int | None = None,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.activation, self.highway = option("activation", activation, ACTIVATIONS), highway
        self.cells = Cells(H, highway_bias, eigenvalues, rngs)
        same = features == H
        self.alpha = Frozen(jnp.sqrt(1 + 2 * jnp.exp(jnp.full(1, float(highway_bias)))))
        self.alpha = self.alpha if highway and same else None
        self.norm = Norm(features, centre=True, bias=True, eps=1e-5) if norm else None
        low = None if rank is None else nnx.Linear(features, rank, use_bias=False, rngs=rngs)
        self.W_in: Any = low
        read, blocks = rank or features, 3 if same or not highway else 4
        W = uniform(1 / read, (read, blocks, H), rngs).at[:, 1:3].multiply(0.5**0.5)
        self.W = nnx.Param(W.reshape(read, blocks * H))

    def initial(self):
        return self.cells.initial()

    def start(self):
        return self.cells.start()

    def learn_initial(self):
        self.cells.learn_initial()

    def sequence(self, x, h, *, resets=None, mask=None, evaluator=None):
        u = x if self.norm is None else self.norm(x)
        u = u if self.W_in is None else self.W_in(u)
        return self.recur(u, x, h, resets=resets, mask=mask, evaluator=evaluator)

    def recur(self, u, x, h, *, resets, mask, evaluator):
        """y [T, hidden] and the last c, for what W reads and what the highway carries."""
        z = u @ self.W[...]
        H = self.out_features
        z, r, other = z[:, : 2 * H], z[:, 2 * H : 3 * H], z[:, 3 * H :]
        c, last = self.cells.states(z, h, resets=resets, mask=mask, evaluator=evaluator)
        r = self.cells.gate(1, r, entering(c, h, self.cells.start(), resets))
        y = r * ACTIVATIONS[self.activation](c)
        if self.highway:
            y = y + (1 - r) * (other if self.alpha is None else self.alpha[...][None] * x)
        return y, last
