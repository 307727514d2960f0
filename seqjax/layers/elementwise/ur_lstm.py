"""UR-LSTM: uniform initialisation and refinement of gates (Gu et al. 2020, arXiv:1910.09890).

    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)
    r_t = sigmoid(W_r x_t + U_r h_{t-1} - b_f)
    g_t = r_t * (1 - (1 - f_t)^2) + (1 - r_t) * f_t^2           the refined gate
    c_t = g_t * c_{t-1} + (1 - g_t) * tanh(W_c x_t + U_c h_{t-1} + b_c)
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o),  h_t = o_t * tanh(c_t) = y_t

r moves f by at most f (1 - f), towards 1 or towards 0, so that a gate can saturate where its own
gradient is gone. b_f starts so that sigmoid(b_f) is uniform on (1/hidden, 1 - 1/hidden); the
second b of W has all four blocks, f, r, c, o. refine False leaves r out (g = f; "U-" of the paper).

`URCell` is a gated tanh unit h_t = (1 - g_t) h_{t-1} + g_t u_t whose gate is any mechanism of the
S4 repository's collection: "G" the sigmoid, "U" with uniform initialisation, "R" and "UR" refined
(there r has no bias of f), "UT" refined by itself, r = g; and exponential relatives of
discretisation: "BE" e/(1 + e), "TE" e/(1 + e/2) with e = exp(z); "TS" the latter with e = 2 s and
"ZS" 1 - exp(-s) with s = sigmoid(z).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.lstm import LSTMState
from seqjax.nn.base import Precise, option
from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent

sigmoid = jax.nn.sigmoid


def refine(f, r):
    """f moved towards 1 or 0 by f (1 - f), as far as r decides."""
    return r * (1 - (1 - f) ** 2) + (1 - r) * f**2


def uniform_bias(hidden: int, rngs: nnx.Rngs) -> jax.Array:
    """b with sigmoid(b) uniform on (1/hidden, 1 - 1/hidden)."""
    edge = min(1 / hidden, 0.5)
    u = jax.random.uniform(rngs.params(), (hidden,), minval=edge, maxval=1 - edge)
    return jnp.log(u) - jnp.log1p(-u)


class URLSTM(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        refine: bool = True,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        self.features, self.refine = features, refine
        H = self.out_features = hidden or features
        blocks = 4 if refine else 3
        self.W = nnx.Linear(features, blocks * H, rngs=rngs)  # carries b
        self.U = nnx.Param(recurrent_weights(H, blocks, init=recurrent_init, rngs=rngs))
        self.b_f = Precise(uniform_bias(H, rngs))

    def initial(self):
        zero = jnp.zeros(self.out_features)
        return LSTMState(zero, zero)

    def drive(self, x):
        return self.W(x)

    def step(self, state, z):
        h, c = state
        f, *r, z, o = jnp.split(z + self.U @ h, 4 if self.refine else 3)
        g = sigmoid(f + self.b_f[...])
        g = refine(g, sigmoid(r[0] - self.b_f[...])) if self.refine else g
        c = g * c + (1 - g) * jnp.tanh(z)
        return LSTMState(sigmoid(o) * jnp.tanh(c), c)

    def readout(self, state, x):
        return state.h


class Mechanism(NamedTuple):
    gate: Callable[[Any, Any], Any]  # of the pre-activations of g and of r
    refined: bool = False  # whether it has an r
    uniform: bool = False  # whether it has a bias that starts uniform


def trapezoid(e):
    return e / (1 + e / 2)


MECHANISMS = {
    "G": Mechanism(lambda g, r: sigmoid(g)),
    "U": Mechanism(lambda g, r: sigmoid(g), uniform=True),
    "R": Mechanism(lambda g, r: refine(sigmoid(g), sigmoid(r)), refined=True),
    "UR": Mechanism(lambda g, r: refine(sigmoid(g), sigmoid(r)), refined=True, uniform=True),
    "UT": Mechanism(lambda g, r: refine(sigmoid(g), sigmoid(g)), uniform=True),
    "BE": Mechanism(lambda g, r: sigmoid(g)),
    "TE": Mechanism(lambda g, r: 2 * sigmoid(g - jnp.log(2.0).astype(g.dtype))),
    "TS": Mechanism(lambda g, r: trapezoid(2 * sigmoid(g))),
    "ZS": Mechanism(lambda g, r: -jnp.expm1(-sigmoid(g))),
}


class URCell(Recurrent):
    """h_t = (1 - g_t) h_{t-1} + g_t tanh(W_u x_t + U_u h_{t-1} + b_u); blocks u, g, r."""

    def __init__(
        self, features: int, *, hidden: int | None = None, mechanism: str = "UR", rngs: nnx.Rngs
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.mechanism = option("mechanism", mechanism, MECHANISMS)
        kind = MECHANISMS[mechanism]
        blocks = 3 if kind.refined else 2
        self.W = nnx.Linear(features, blocks * H, rngs=rngs)  # carries b
        self.U = nnx.Param(recurrent_weights(H, blocks, init="orthogonal", rngs=rngs))
        self.b_g = Precise(uniform_bias(H, rngs)) if kind.uniform else None

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.W(x)

    def gates(self, h, z):
        """u_t and g_t."""
        u, g, *r = jnp.split(z + self.U @ h, self.U.shape[0] // self.out_features)
        g = g if self.b_g is None else g + self.b_g[...]
        return jnp.tanh(u), MECHANISMS[self.mechanism].gate(g, r[0] if r else None)

    def step(self, h, z):
        u, g = self.gates(h, z)
        return (1 - g) * h + g * u
