"""sLSTM (Beck et al. 2024, xLSTM, arXiv:2405.04517 sec. 2.2).

    (i~, f~, z~, o~)_t = W x_t + R h_{t-1} + b             R block-diagonal: units mix within a head
    m_t = max(log f_t + m_{t-1}, i~_t)                     stabiliser             eq. 15
    i_t = exp(i~_t - m_t)                                  input gate             eq. 16
    f_t = exp(log f_t + m_{t-1} - m_t)                     forget gate            eq. 17
    c_t = f_t * c_{t-1} + i_t * tanh(z~_t)                 cell                   eq. 8
    n_t = f_t * n_{t-1} + i_t                              normaliser             eq. 9
    h_t = sigmoid(o~_t) * c_t / n_t = y_t                                         eq. 10

log f = log sigmoid(f~) with `forget` "sigmoid", f~ with "exp" (eq. 13 allows both). The state
(h, c, n, m), each [hidden], starts at zero; while n = 0 nothing was stored and m_t = i~_t, so that
n is 1 after the first step and never less: c / n needs no epsilon. (c, n, m) has a gauge: exp(m) c
and exp(m) n are what it stands for.

W has rows in the order i, f, z, o; R is [heads, 4, d, d], d = hidden / heads. As in the official
code R starts at zero and b_f of a head falls from 5 to -7, as 5 - 12 (k / (d - 1))^p over its units
k, with p = 0.3 + 1.3 `depth`, the layer's place in its stack from 0 to 1. `mixing` False takes R
out: then no unit sees the past of another ("memory mixing").

This is the recurrence alone: the convolution, the group norm and the gated MLP of the xLSTM block
are not here. Nor are, of the official code, other starts of R and b, and limits on outputs and
gradients (off in it), under which the gradient is not that of the equations.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Precise, option
from seqjax.nn.recurrent import Recurrent

FORGET = {"sigmoid": jax.nn.log_sigmoid, "exp": lambda f: f}


class SLSTMState(NamedTuple):
    h: jax.Array  # [hidden], the output
    c: jax.Array  # [hidden], the cell, exp(m) c unscaled
    n: jax.Array  # [hidden], the normaliser
    m: jax.Array  # [hidden], the exponent of both

    def canonical(self):
        scale = jnp.exp(self.m)
        return SLSTMState(self.h, scale * self.c, scale * self.n, jnp.zeros_like(self.m))


class SLSTM(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        heads: int = 1,
        forget: str = "sigmoid",
        mixing: bool = True,
        depth: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        if H % heads:
            raise ValueError(f"hidden must be a multiple of heads, got {H} and {heads}")
        self.heads, d = heads, H // heads
        self.forget = option("forget gate", forget, FORGET)
        self.W: Callable[[jax.Array], jax.Array] = nnx.Linear(
            features, 4 * H, use_bias=False, rngs=rngs
        )
        self.R = nnx.Param(jnp.zeros((heads, 4, d, d))) if mixing else None
        falling = 5 - 12 * (jnp.arange(d) / max(d - 1, 1)) ** (0.3 + 1.3 * depth)
        self.b = Precise(jnp.zeros((4, H)).at[1].set(jnp.tile(falling, heads)))

    def initial(self):
        zero = jnp.zeros(self.out_features)
        return SLSTMState(zero, zero, zero, zero)

    def drive(self, x):
        return self.W(x).reshape(len(x), 4, self.out_features)

    def step(self, state, z):
        h, c, n, m = state
        z = z + self.b[...]
        if self.R is not None:
            mixed = jnp.einsum("hgoi,hi->gho", self.R[...], h.reshape(self.heads, -1))
            z = z + mixed.reshape(z.shape)
        i, f, z_, o = z
        f = FORGET[self.forget](f) + m
        m = jnp.where(jnp.all(n == 0), i, jnp.maximum(f, i))
        # at most 0 by the choice of m, but for f in the first step, where it multiplies zeros
        i, f = jnp.exp(i - m), jnp.exp(jnp.minimum(f - m, 0))
        c, n = f * c + i * jnp.tanh(z_), f * n + i
        return SLSTMState(jax.nn.sigmoid(o) * c / n, c, n, m)

    def readout(self, state, x):
        return state.h
