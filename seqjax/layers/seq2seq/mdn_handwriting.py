"""The network that writes by hand (Graves 2013, arXiv:1308.0850, secs 4 and 5).

    h^1_t = LSTM(h^1_{t-1}; x_t, w_{t-1})            state: (h^n, c^n) of N layers, w, kappa [K]
    h^n_t = LSTM(h^n_{t-1}; x_t, h^{n-1}_t, w_t)     n = 2 .. N
    y_t   = b + sum_n W_n h^n_t                      skips from and to all layers (eq. 17)

w is a window of K Gaussians over the source c_1 ... c_U, the characters, which moves on only:

    (alpha^, beta^, kappa^)_t = W_p h^1_t + b_p      alpha, beta = exp(alpha^), exp(beta^)  (48-50)
    kappa_t = kappa_{t-1} + exp(kappa^_t)                                                   (51)
    phi(t, u) = sum_k alpha_t^k exp(-beta_t^k (kappa_t^k - u)^2)                            (46)
    w_t = sum_u phi(t, u) c_u                                                               (47)

Steps of the source that are not present have no place: u counts from 1 to U those that are. The
LSTM has peepholes (eqs 7-11). Without a source w is zero, and it is the network of sec. 4, which
predicts. The mixture of section 4 is `seqjax.answers.Strokes`, whose parameters a model's head
reads off y. `pace` is kappa_t - kappa_{t-1} at the start, characters per step: 1 by the equations,
but a letter takes many. For strokes of a pen, and other outputs that follow a text in its order.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Source
from seqjax.layers.classic.lstm import LSTM
from seqjax.nn.recurrent import Recurrent


class HandState(NamedTuple):
    layers: tuple[Any, ...]  # LSTMState
    w: Array  # [features]
    kappa: Array  # [K]


def gaussians(hats: Array, kappa: Array, there: Array) -> tuple[Array, Array]:
    """phi [U] and the next kappa [K], of hats [3 K] and of which steps are there, bool [U]."""
    alpha, beta, move = jnp.split(jnp.exp(hats), 3)
    kappa = kappa + move
    away = kappa[:, None] - jnp.cumsum(there, dtype=kappa.dtype)[None]
    phi = jnp.sum(alpha[:, None] * jnp.exp(-beta[:, None] * away**2), axis=0)
    return jnp.where(there, phi, 0), kappa


class MDNHandwriting(Recurrent):
    sourced = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        depth: int = 3,
        components: int = 10,
        pace: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        H = self.hidden = hidden or features
        self.components = components
        self.cells = nnx.List([
            LSTM(2 * features + (H if n else 0), hidden=H, peepholes=True, rngs=rngs)
            for n in range(depth)
        ])  # fmt: skip
        start = jnp.zeros(3 * components).at[2 * components :].set(jnp.log(pace))
        self.W_p = nnx.Linear(H, 3 * components, bias_init=lambda *_: start, rngs=rngs)
        self.V = nnx.Linear(depth * H, features, rngs=rngs)

    def initial(self):
        layers = tuple(cell.initial() for cell in self.cells)
        return HandState(layers, jnp.zeros(self.features), jnp.zeros(self.components))

    def seen(self, source: Source) -> Source:
        return Source(source.y, source.there)

    def step(self, h, z, seen=None):
        first = self._cell(0, h.layers[0], z, h.w)
        w, kappa, layers = h.w, h.kappa, [first]
        if seen is not None:
            phi, kappa = gaussians(self.W_p(first.h).astype(kappa.dtype), kappa, seen.present)
            w = phi.astype(seen.y.dtype) @ seen.y
        for n in range(1, len(self.cells)):
            layers.append(self._cell(n, h.layers[n], z, w, layers[-1].h))
        return HandState(tuple(layers), w, kappa)

    def _cell(self, n, state, *inputs):
        cell = self.cells[n]
        return cell.step(state, cell.drive(jnp.concatenate(inputs)))

    def readout(self, h, x):
        return self.V(jnp.concatenate([layer.h for layer in h.layers]))

    def alignment(self, before: HandState, after: HandState, source: Source) -> Array:
        """phi [U] of a step that led from one state to another."""
        return gaussians(self.W_p(after.layers[0].h), before.kappa, source.there)[0]
