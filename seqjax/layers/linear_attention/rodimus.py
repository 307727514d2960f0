"""Rodimus (He et al. 2024, arXiv:2410.06577): gated linear attention with a tempered gate.

    u_t = W_up x_t,  s_t = SiLU(conv(u)_t)
    g_t = softplus(W_g s_t + b_g),  tau_t = sigmoid(W_tau s_t + b_tau)         [K] each
    S_t = Diag(exp(-g_t tau_t)) S_{t-1} + (g_t^tau_t * k_t / |k_t|) v_t^T      S [1, K, inner]
    o_t = K^-1/2 q_t S_t + d * s_t                                             read after the write
    q_t = W_q s_t,  k_t = W_k s_t,  v_t = sigmoid(W_i2 W_i1 u_t + b_i) * u_t
    y_t = W_down RMSNorm(o_t * SiLU(W_gate x_t))

One gate g makes both the decay and what is written: where much is written much is forgotten, and
the temperature tau (data-dependent tempered selection) moves both towards neither. One head with
few keys and all values, so a small state: useful in place of attention where memory is dear.

softplus(b_g) starts log-uniform in [0.001, 0.1], sigmoid(b_tau) uniform in [1/16, 0.9], as
released. By default inner is twice the features, next to a multiple of 8, and K = 64. Norm after
the gate; v comes of u before its convolution; |k| is sqrt(|k|^2 + `key_eps`). `conv=0`: s = u.
Rodimus+, with sliding attention of shared keys between, is a stack of this and other layers.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import Convolved, ShortConv
from seqjax.nn.initialisation import time_step_bias
from seqjax.nn.linear import Bottleneck, wide
from seqjax.nn.norms import Norm, unit
from seqjax.ops.linear_attention import linear_attention

LECUN = nnx.initializers.lecun_normal()
SMALL = nnx.initializers.variance_scaling(2.0**-5, "fan_avg", "uniform")


def log_softplus(a: jax.Array) -> jax.Array:
    """log log(1 + exp(a)), which is a where exp(a) is nothing beside 1."""
    low = a < -30
    return jnp.where(low, a, jnp.log(jax.nn.softplus(jnp.where(low, 0, a))))


class Rodimus(Layer):
    ops = ("linear_attention",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        key_size: int = 64,
        inner: int | None = None,
        rank: int | None = None,
        conv: Annotated[int, Range(0)] = 4,
        conv_bias: bool = True,
        norm_eps: float = 1e-5,
        key_eps: float = 1e-12,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.K, self.key_eps = key_size, key_eps
        self.inner = inner = inner or -(-2 * features // 8) * 8

        def linear(n, m, init=LECUN):
            return nnx.Linear(n, m, use_bias=False, kernel_init=init, rngs=rngs)

        self.W_gate, self.W_up = linear(features, inner), linear(features, inner)
        self.conv = ShortConv(inner, conv, bias=conv_bias, rngs=rngs) if conv else None
        self.W_q, self.W_k = linear(inner, key_size), linear(inner, key_size)
        self.W_g, self.W_tau = linear(inner, key_size, SMALL), linear(inner, key_size, SMALL)
        self.b_g = Precise(time_step_bias(rngs.params(), key_size, 1e-3, 1e-1))
        share = jax.random.uniform(rngs.params(), (key_size,), minval=1 / 16, maxval=0.9)
        self.b_tau = Precise(jax.scipy.special.logit(share))
        rank = rank or max(features // 64, 16)
        self.W_i = Bottleneck(inner, rank, inner, bias=True, init=SMALL, rngs=rngs)
        self.d = Precise(jnp.ones(inner))
        self.norm = Norm(inner, eps=norm_eps)
        self.W_down = linear(inner, features)

    def initial(self):
        S = jnp.zeros((1, self.K, self.inner))
        return Convolved(() if self.conv is None else self.conv.initial(), S)

    def run(self, x, h, flow):
        u = s = self.W_up(x)
        window = ()
        if self.conv is not None:
            s, window = self.conv(u, h.window, flow)
            s = jax.nn.silu(s)
        q, k = self.W_q(s), unit(self.W_k(s), self.key_eps)
        v = jax.nn.sigmoid(self.W_i(u)) * u
        log_g = log_softplus(self.W_g(s) + self.b_g[...][None])
        tau = jax.nn.sigmoid(self.W_tau(s) + self.b_tau[...][None])
        q, k, v, log_alpha = (
            z[:, None] for z in (q, k * jnp.exp(tau * log_g), wide(v), -jnp.exp(log_g) * tau)
        )
        o, S = linear_attention(q, k, v, log_alpha, h.S, scale=self.K**-0.5, flow=flow)
        o = o[:, 0] + self.d[...][None] * s
        y = self.norm(o * jax.nn.silu(self.W_gate(x)))
        return self.W_down(y.astype(x.dtype)), Convolved(window, S)
