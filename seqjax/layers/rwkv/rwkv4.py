"""RWKV-4 time mixing (Peng et al. 2023, arXiv:2305.13048).

    x^j_t = mu_j * x_t + (1 - mu_j) * x_{t-1},   j in k, v, r          token shift
    r = W_r x^r,  k = W_k x^k,  v = W_v x^v                            each [hidden]
    wkv_t = (sum_{i<t} e^{(t-1-i) w + k_i} * v_i + e^{u + k_t} * v_t)
            / (the same sums without v),         w = -exp(w_raw)
    y_t = W_o (sigmoid(r_t) * wkv_t)

Per channel wkv is a softmax-weighted mean of the values so far, in which a past token loses weight
at the rate w and the present one has a bonus u, and none yet of the decay. Its sums are kept as
exp(m) times bounded ones, m the running maximum of the exponents: the state of Aaren
(`seqjax.layers.linear_attention.aaren`) with a decay. It starts empty, m = -inf.

Parameters of the release: w = time_decay, u = time_first, mu = time_mix_k, _v, _r. Initialised
as the release is. `block`, `inner`, `depth`: see `seqjax.layers.rwkv.parts`.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.monoid import stabilised
from seqjax.layers.linear_attention.aaren import Means, means, with_one
from seqjax.layers.rwkv.parts import RWKV, TimeState, lerp, linear
from seqjax.nn.base import Group, Precise
from seqjax.nn.convolution import token_shift
from seqjax.nn.states import entering


class RWKV4(RWKV):
    ops = ("stabilised",)
    sequence_parallel = True
    # The release's layerwise_lr: time_decay twice as fast, time_first three times.
    trained: ClassVar = {"w": Group(rate=2.0, decay=0.0), "u": Group(rate=3.0, decay=0.0)}

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        block: bool = False,
        inner: int | None = None,
        depth: float = 0.0,
        rngs: nnx.Rngs,
    ):
        C = self.features = self.out_features = features
        D = self.hidden = hidden or C
        place, rest = jnp.arange(C) / C, 1 - depth
        k = place**rest
        self.mu = nnx.Param(jnp.stack([k, k + 0.3 * depth, place ** (rest / 2)]))  # k, v, r
        channel = jnp.arange(float(D))
        self.w = Precise(-5 + 8 * (channel / max(1, D - 1)) ** (0.7 + 1.3 * depth))
        self.u = Precise(0.5 * ((channel + 1) % 3 - 1) + jnp.log(0.3))
        self.W_k, self.W_v, self.W_r = (linear(C, D, gain, rngs) for gain in (0.0, 1.0, 0.0))
        self.W_o = linear(D, C, 0.0, rngs)
        self.add_block(4, block, inner=inner, depth=depth, rngs=rngs)

    def remembered(self):
        return Means.empty(self.hidden, 1)

    def time_mixing(self, x, h, flow):
        before, window = token_shift(x, h.window, flow=flow)
        x_k, x_v, x_r = lerp(before, x, self.mu[...])
        y, S = self.wkv(self.W_k(x_k), self.W_v(x_v), h.S, flow)
        y = jax.nn.sigmoid(self.W_r(x_r)) * y.astype(x.dtype)
        return self.W_o(y), TimeState(window, S)

    def wkv(self, k, v, h, flow):
        """wkv [T, hidden] for k, v [T, hidden], and the next state."""
        v = v[..., None]
        states, last = means(-jnp.exp(self.w[...])[None], k, v, h, flow)
        past = entering(states, h, flow)
        now = k.astype(past.m.dtype) + self.u[...][None]
        element = jnp.zeros_like(now), now, with_one(v).astype(now.dtype)
        return Means(*jax.vmap(stabilised.act)(element, tuple(past))).read()[..., 0], last
