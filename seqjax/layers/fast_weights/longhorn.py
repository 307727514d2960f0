"""Longhorn (Liu et al. 2024, arXiv:2407.14207): online regression, each step solved implicitly.

    S_t = argmin_S |S - S_{t-1}|^2 + |S k_t - u_t|^2_{diag beta_t}   one row of S [d, N] per channel
        = (1 - Delta_t k_t^2) * S_{t-1} + Delta_t u_t k_t^T          k_t^2 entry by entry
    Delta_t = beta_t / (1 + beta_t |k_t|^2)                          [d]
    y_t = S_t q_t + D u_t

    [u, z] = W_in x;  u = SiLU(conv(u));  [delta, k, q] = W_x u      delta of rank R, k and q [N]
    beta_t = sigmoid(W_dt delta + dt_bias)                           [d]
    out_t = W_out (y_t * SiLU(z_t))

The exact minimiser has the transition I - Delta k k^T per channel; as in the paper its diagonal is
taken, which makes the recurrence elementwise. The decay lies in (0, 1) by construction: it is no
gate, so there is no range of eigenvalues to choose. q and k are not normalised. The block and its
initialisation are Mamba's. `longhorn_scan` is the recurrence alone. Of the release's options not
here: how W_dt starts (dt_init, dt_scale, dt_init_floor), and switches of biases: the convolution
has one, W_in and W_out have none.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.common import accumulation_dtype
from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import ShortConv
from seqjax.nn.initialisation import time_step_bias
from seqjax.ops.linear_scan import linear_scan


class LonghornState(NamedTuple):
    window: jax.Array  # [conv - 1, d]
    S: jax.Array  # [d, N]


class Longhorn(Layer):
    ops = ("linear_scan",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        state: int = 16,
        conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        d, self.N, self.R = expand * features, state, dt_rank or math.ceil(features / 16)

        def linear(n, m, **options):
            return nnx.Linear(n, m, use_bias=False, rngs=rngs, **options)

        def init(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, -1, 1) * self.R**-0.5

        self.W_in, self.conv = linear(features, 2 * d), ShortConv(d, conv, rngs=rngs)
        self.W_x = linear(d, self.R + 2 * state)
        self.W_dt = linear(self.R, d, kernel_init=init)
        self.dt_bias = Precise(time_step_bias(rngs.params(), d, dt_min, dt_max))
        self.D = Precise(jnp.ones(d))
        self.W_out = linear(d, features)

    def initial(self):
        return LonghornState(self.conv.initial(), jnp.zeros((self.D.shape[0], self.N)))

    def run(self, x, h, flow):
        u, z = jnp.split(self.W_in(x), 2, axis=1)
        u, window = self.conv(u, h.window, flow)
        u = jax.nn.silu(u)
        delta, k, q = jnp.split(self.W_x(u), (self.R, self.R + self.N), axis=1)
        y, S = longhorn_scan(
            u,
            q,
            k,
            self.W_dt(delta),
            self.D[...],
            z,
            self.dt_bias[...],
            h.S,
            flow=flow,
        )
        return self.W_out(y), LonghornState(window, S)


def longhorn_scan(
    u, q, k, delta, D=None, z=None, delta_bias=None, state=None, **options
) -> tuple[jax.Array, jax.Array]:
    """(S_t q_t + D u_t) SiLU(z_t) [T, d] and the last S [d, N], for beta = sigmoid(delta + bias).

    u, delta, z [T, d], q, k [T, N] and state [d, N] of one example; options: those of
    `linear_scan`, which runs over d N channels and keeps all states.
    """
    dtype, precise, shape = u.dtype, accumulation_dtype(u.dtype), (u.shape[1], k.shape[1])
    u, q, k, delta = (x.astype(precise) for x in (u, q, k, delta))
    beta = jax.nn.sigmoid(delta if delta_bias is None else delta + delta_bias[None])
    square = k * k
    step = beta / (1 + beta * jnp.sum(square, axis=1, keepdims=True))
    flat = lambda x: x.reshape(*x.shape[:-2], math.prod(shape))  # noqa: E731
    states, last = linear_scan(
        flat(1 - step[:, :, None] * square[:, None]),
        flat((step * u)[:, :, None] * k[:, None]),
        jax.tree.map(flat, state),  # of a Carry both
        **options,
    )
    y = jnp.einsum("tdn,tn->td", states.reshape(len(u), *shape), q)
    y = y if D is None else y + D[None] * u
    y = y if z is None else y * jax.nn.silu(z.astype(precise))
    return y.astype(dtype), last.reshape(shape)
