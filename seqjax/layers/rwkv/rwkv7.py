"""RWKV-7 time mixing (Peng et al. 2025, arXiv:2503.14456 sec. 4.1).

    x^j_t = x_t + (x_{t-1} - x_t) * mu_j,    j in r, w, k, v, a, g      token shift        eq. 3
    r = W_r x^r,  k = W_k x^k,  v = W_v x^v                                                eq. 4
    log w = -e^-1/2 sigmoid(w_0 + tanh(x^w w_1) w_2)         decay, in (-0.61, 0)          eq. 12
    a = sigmoid(a_0 + x^a a_1 a_2)                           in-context learning rate      eq. 4
    g = sigmoid(x^g g_1) g_2                                 output gate                   eq. 14
    v <- v + (v_first - v) * sigmoid(v_0 + x^v v_1 v_2)      layers after the first        eq. 10
    kappa = unit(k * k_k) per head,   k <- k * (1 + (a - 1) * k_a)                     eq. 5, 7, 15
    S_t = (Diag(w_t) - (kappa * a) kappa^T) S_{t-1} + k v^T          S [heads, K, K]   eq. 16, 17
    y_t = W_o [ g * (GroupNorm(S_t^T r) + (sum r * r_k * k) v) ]                       eq. 18-21

(The paper writes the transpose of S.) kappa reads S_{t-1} before it decays. The transition may have
eigenvalues in (-1, 1) along kappa as it stands: w >= 0.54, a < 1.

`mixes_values` makes a layer after the first: `mix` then takes v_first, the v of the first layer (a
stack of blocks passes it on), which the plain call of such a layer cannot know and refuses. `depth`
in [0, 1) is the layer's place in the stack, on which the released initialisation depends. W_o
starts at zero, as released. ranks: of the low-rank maps (w, a, v, g). norm_eps, head_eps, key_eps:
of the block's norms, of GroupNorm and of unit. `block`, `inner`: see `seqjax.layers.rwkv.parts`;
with a block too `mix` takes and gives v_first.
"""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.rwkv.parts import RWKV, LowRank, TimeState, lerp
from seqjax.nn.base import Group
from seqjax.nn.convolution import token_shift
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm, unit
from seqjax.ops.dplr import dplr


class RWKV7(RWKV):
    ops = ("dplr",)
    sequence_parallel = True
    trained: ClassVar = {"w.bias": Group(rate=2.0, decay=0.0)}  # the release's layerwise_lr: att.w0

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        mixes_values: bool = False,
        depth: float = 0.0,
        ranks: Sequence[int] | None = None,
        block: bool = False,
        inner: int | None = None,
        norm_eps: float = 1e-5,
        head_eps: float = 64e-5,
        key_eps: float = 1e-24,
        rngs: nnx.Rngs,
    ):
        C = self.features = self.out_features = features
        self.heads, self.K = heads, per_head("features", features, heads)
        if ranks is None:  # the release's rule
            w, v, g = 1.8 * C**0.5, 1.3 * C**0.5, 0.6 * C**0.8
            ranks = [max(32, round(n / 32) * 32) for n in (w, w, v, g)]
        place, rest = jnp.arange(C) / C, 1 - depth
        mu = [place ** (power * rest) for power in (0.2, 0.9, 0.9, 0.4, 0.9, 0.2)]
        mu[2], mu[3] = mu[2] + 0.4 * depth, mu[3] + 0.6 * depth
        self.mu = nnx.Param(1 - jnp.stack(mu))  # r, w, k, v, a, g
        speed = (jnp.arange(C) / max(1, C - 1)) ** (0.85 + depth**0.5)
        self.w = LowRank(C, ranks[0], -6.5 + 5 * speed, rngs=rngs)
        self.a = LowRank(C, ranks[1], jnp.zeros(C), rngs=rngs)
        self.v = LowRank(C, ranks[2], jnp.ones(C), rngs=rngs) if mixes_values else None
        self.g = LowRank(C, ranks[3], None, rngs=rngs)
        self.k_k, self.k_a = nnx.Param(jnp.full(C, 0.85)), nnx.Param(jnp.ones(C))
        self.r_k = nnx.Param(jnp.zeros((heads, self.K)))

        def linear(bound):
            def init(key, shape, dtype):
                return jax.random.uniform(key, shape, dtype, -bound * C**-0.5, bound * C**-0.5)

            return nnx.Linear(C, C, use_bias=False, kernel_init=init, rngs=rngs)

        self.W_r, self.W_k, self.W_v, self.W_o = (linear(b) for b in (0.5, 0.05, 0.5, 0.0))
        self.norm = Norm(heads, self.K, centre=True, bias=True, eps=head_eps)
        self.key_eps = key_eps

        self.add_block(7, block, inner=inner, depth=depth, norm_eps=norm_eps, rngs=rngs)

    def remembered(self):
        return jnp.zeros((self.heads, self.K, self.K))

    def run(self, x, h, flow):
        y, _, h = self.mix(x, h, flow)
        return y, h

    def mix(self, x, h, flow, v_first=None):
        """y, v and the next state for one example x [T, features]; v_first [T, features]."""
        if not self.block:
            return self.with_values(x, h, flow, v_first)
        y, v, time = self.with_values(self.norms[0](x), h.time, flow, v_first)
        x, h = self.after_time_mixing(x + y, time, h.channel, flow)
        return x, v, h

    def with_values(self, x, h, flow, v_first):
        """The time mixing: y, v and the next state."""
        before, window = token_shift(x, h.window, flow=flow)
        x_r, x_w, x_k, x_v, x_a, x_g = lerp(x, before, self.mu[...])
        r, k, v = self.W_r(x_r), self.W_k(x_k), self.W_v(x_v)
        log_w = -jnp.exp(-0.5) * jax.nn.sigmoid(self.w(x_w, jnp.tanh))
        a = jax.nn.sigmoid(self.a(x_a))
        g = self.g(x_g, jax.nn.sigmoid)
        if self.v is not None:
            if v_first is None:
                raise ValueError("an RWKV7 with mixes_values needs v_first: call its `mix`")
            v = v + (v_first - v) * jax.nn.sigmoid(self.v(x_v))

        split = lambda z: split_heads(z, self.heads)  # noqa: E731
        kappa = unit(split(k * self.k_k[...][None]), eps=self.key_eps)
        k = split(k * (1 + (a - 1) * self.k_a[...][None]))
        r, values = split(r), split(v)
        y, S = dplr(
            r,
            k,
            wide(values),
            -kappa,
            kappa * split(a),
            split(log_w),
            h.S,
            flow=flow,
        )
        bonus = jnp.sum(r * k * self.r_k[...][None], axis=-1, keepdims=True)
        y = merge_heads(self.norm(y).astype(x.dtype) + bonus * values) * g
        return self.W_o(y), v, TimeState(window, S)
