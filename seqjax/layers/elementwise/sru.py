"""Simple recurrent unit (Lei et al. 2018, arXiv:1709.02755).

    f_t = sigmoid(W_f x_t + v_f * c_{t-1} + b_f)
    c_t = f_t * c_{t-1} + (1 - f_t) * (W x_t)                  c [hidden]
    r_t = sigmoid(W_r x_t + v_r * c_{t-1} + b_r)
    h_t = r_t * g(c_t) + (1 - r_t) * alpha x_t = y_t           g the identity

Both gates see the cell before it moves; the dependence is element-wise, so dc_t/dc_{t-1} is
diagonal. If hidden is not features the highway carries W' x_t instead of alpha x_t.
alpha = sqrt(1 + 2 exp(b_r)), of the b_r at the start (`highway_bias`), keeps the variance of h
that of x; it is not trained. Blocks of W: W, W_f, W_r, W'.

activation: g may be tanh, as in the first version. highway False: h = r * g(c). rescale False:
alpha = 1. norm: a LayerNorm on what W reads, not on the highway; with normalize_after on y instead.
rank: W = a product of two matrices of that rank. eigenvalues "[-1,1]": the f_t that multiplies
c_{t-1} becomes 2 f_t - 1 (arXiv:2411.12537; an eigenvalue where v_f = 0).

bidirectional: a second cell reads from the end, and y has both, [2 hidden]; they share the norm and
the first factor of W, and where features = 2 hidden each highway carries its half of alpha x. The
state is that of both, as in `bidirectional`.

Initialised as the released code does: W of variance 1 / fan-in, halved for the gates, v of variance
1/2. Left out of its constructor: the dropouts (they are of models), custom_m (`sru_pp` is one),
weight_c_init (the range v starts in) and amp_recurrence_fp16 (states are at least float32 here).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.bidirectional import BiState
from seqjax.nn.base import Frozen, Layer, Precise, option
from seqjax.nn.gates import EIGENVALUES, multiplier
from seqjax.nn.norms import Norm
from seqjax.nn.recurrent import Recurrent
from seqjax.nn.states import entering

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
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        activation: str = "linear",
        highway: bool = True,
        highway_bias: float = 0.0,
        rescale: bool = True,
        norm: bool = False,
        normalize_after: bool = False,
        bidirectional: bool = False,
        rank: int | None = None,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        if normalize_after and not norm:
            raise ValueError("normalize_after is where the norm is: it needs norm=True")
        self.features, H, ways = features, hidden or features, 1 + bidirectional
        self.hidden, self.out_features, self.causal = H, ways * H, not bidirectional
        self.activation, self.highway = option("activation", activation, ACTIVATIONS), highway
        self.normalize_after = normalize_after
        self.cells = Cells(H, highway_bias, eigenvalues, rngs)
        self.back = Cells(H, highway_bias, eigenvalues, rngs) if bidirectional else None
        same = features == self.out_features
        self.alpha = Frozen(jnp.sqrt(1 + 2 * jnp.exp(jnp.full(1, float(highway_bias)))))
        self.alpha = self.alpha if highway and same and rescale else None
        size = self.out_features if normalize_after else features
        self.norm = Norm(size, centre=True, bias=True, eps=1e-5) if norm else None
        low = None if rank is None else nnx.Linear(features, rank, use_bias=False, rngs=rngs)
        self.W_in: Any = low
        read, blocks = rank or features, 3 if same or not highway else 4
        W = uniform(1 / read, (read, ways, blocks, H), rngs).at[:, :, 1:3].multiply(0.5**0.5)
        self.W = nnx.Param(W.reshape(read, ways * blocks * H))

    def parts(self) -> Any:
        return self.cells if self.back is None else BiState(self.cells, self.back)

    def run(self, x, h, flow):
        u = x if self.norm is None or self.normalize_after else self.norm(x)
        u = u if self.W_in is None else self.W_in(u)
        return self.recur(u, x, h, flow)

    def recur(self, u, x, h, flow) -> tuple[jax.Array, Any]:
        """y [T, out_features] and the last c, for what W reads and what the highway carries."""
        z = u @ self.W[...]
        x = x if self.alpha is None else self.alpha[...][None] * x
        if self.back is None:
            y, last = self.one(self.cells, z, x, h, flow)
        else:
            z, z_back = jnp.split(z, 2, axis=1)
            x, x_back = self.halves(x)
            y, forward = self.one(self.cells, z, x, h.forward, flow)
            y_back, backward = self.one(
                self.back, z_back[::-1], x_back[::-1], h.backward, flow.backwards()
            )
            y, last = jnp.concatenate([y, y_back[::-1]], axis=1), BiState(forward, backward)
        return (self.norm(y) if self.norm is not None and self.normalize_after else y), last

    def halves(self, x):
        """What of x each direction's highway may carry."""
        return jnp.split(x, 2, axis=1) if self.features == self.out_features else (x, x)

    def one(self, cells, z, x, h, flow):
        """One direction: y [T, hidden] and the last c, of all blocks of W x."""
        H = self.hidden
        z, r, other = z[:, : 2 * H], z[:, 2 * H : 3 * H], z[:, 3 * H :]
        c, last = cells.states(z, h, flow)
        r = cells.gate(1, r, entering(c, h, flow))
        y = r * ACTIVATIONS[self.activation](c)
        if self.highway:
            y = y + (1 - r) * (other if other.shape[1] else x)
        return y, last
