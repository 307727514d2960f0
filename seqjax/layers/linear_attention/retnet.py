"""RetNet (Sun et al. 2023, arXiv:2307.08621): multi-scale retention, in its block.

    S_n = gamma_h S_{n-1} + (k_n e^{i n theta}) v_n^T              S [heads, key, value]    eq. 6
    o_n = (q_n e^{i n theta})^T S_n                                read after the write
    gamma_h = 1 - 2^{-5-h},  k scaled by key^-1/2                                           eq. 8
    MSR(x) = W_O (swish(W_G x) * GroupNorm_h(o))                                            eq. 8
    z = x + MSR(LN(x)),  y = z + W_2 gelu(W_1 LN(z))                                        eq. 9

e^{i n theta} turns neighbouring channels as pairs, by n 10000^-linspace(0, 1, key / 2) as released
(the last rate included). The values are twice as wide as x, and so is the feed-forward network.
`Retention` is MSR alone, `RetNet` the block.

xpos: the decay of each pair of channels besides gamma of arXiv:2212.10554, zeta^(1/512) per step
(`xpos` below). Retention as released does without. It enters as a decay of the state here: the
scales zeta^(+- n/512) themselves, of far positions, are not representable.

With fewer `kv_heads` each k and v serves several heads in a row; gamma, and so S, is each head's
own. gate: "swish" or "gelu" (exact), of W_G x, as released, or "none". norm: "group" as in the
paper, "shared rms" with weights that the heads share, or "rms" without weights, as released. Before
it every o may be scaled, which is immaterial but for the norm's epsilon. `scale` is by what:
    "count"    (sum_{j <= n} gamma^j)^-1/2, sec. 2.4, as the release does step by step
    "scores"   that, over max(1, sum_m |scores|, entering state), which the release does for whole
               inputs and chunks, without its gradient. It depends on where a stream is split.
    "none"     by nothing, as flash-linear-attention has it
Of that are also `halves`: channels (i, i + key / 2) are turned as pairs, by n 10000^(-2i / key),
and `qk_map`, which q and k pass through before they are turned.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from seqjax.core.common import accumulation_dtype
from seqjax.nn.activations import gelu, silu
from seqjax.nn.base import Layer, option
from seqjax.nn.blocks import Blocks
from seqjax.nn.feature_maps import QK_MAPS
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.heads import share_heads
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.positions import angles, places, rotary

NORMS = {
    "group": dict(centre=True, bias=True),
    "shared rms": {},
    "rms": dict(weight=False),
}
SCALES = ("count", "scores", "none")
GATES = {"swish": silu, "gelu": gelu, "none": None}


def turn(x: Array, angle: Array) -> Array:
    """Neighbouring channels (2i, 2i + 1) of x [T, H, K] turned by angle [T, K/2]."""
    pairs = x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2)
    cos, sin = jnp.cos(angle)[:, None].astype(x.dtype), jnp.sin(angle)[:, None].astype(x.dtype)
    a, b = pairs[..., 0], pairs[..., 1]
    return jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)


def log_zeta(K: int, base: float = 512.0) -> Array:
    """[K]: by how much, in logarithm, xPos lets the channels decay per step."""
    i = np.arange(0, K, 2)
    return jnp.asarray(np.repeat(np.log((i + 0.4 * K) / (1.4 * K)) / base, 2))


def xpos(
    x: Array, place: Array, *, keys: bool = False, centre: int = 0, base: float = 512.0
) -> Array:
    """xPos of x [T, H, K] at the positions place [T]: turned by 10000^(-2i/K), scaled by zeta.

    Queries are scaled by zeta^((place - centre) / base), `keys` by the inverse; only differences
    of positions enter products, so `centre` is free: it keeps the scales in range.
    """
    K = x.shape[-1]
    rate = 10_000.0 ** (-np.arange(0, K, 2) / K)
    turned = turn(x, angles(place, rate, accumulation_dtype(x.dtype)))
    power = (place - centre).astype(x.dtype) * (-1 if keys else 1)
    scale = jnp.exp(power[:, None] * log_zeta(K, base).astype(x.dtype)[None])
    return turned * scale[:, None]


class RetentionState(NamedTuple):
    S: Array  # [heads, K, V]
    place: Array  # int32 [], of the next step


class Retention(Layer):
    ops = ("linear_attention",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        xpos: bool = False,
        gate: str = "swish",
        norm: str = "group",
        scale: str = "count",
        norm_eps: float = 1e-5,
        halves: bool = False,
        qk_map: str = "identity",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.xpos = heads, xpos
        self.K = key_size or per_head("features", features, heads)
        self.V = value_size or 2 * self.K
        self.halves, self.qk_map = halves, QK_MAPS[option("qk_map", qk_map, QK_MAPS)]
        per_head("the size of a head", self.K, 2)
        if halves and xpos:
            raise ValueError("xpos is of neighbouring channels, not of halves")
        self.scale = option("scale", scale, SCALES)
        self.f = GATES[option("gate", gate, GATES)]
        self.kv_heads = kv_heads or heads
        per_head("heads", heads, self.kv_heads)
        keys, values = self.kv_heads * self.K, heads * self.V
        small = nnx.initializers.variance_scaling(2.0**-5, "fan_avg", "uniform")

        def linear(n, m, init=small):
            return nnx.Linear(n, m, use_bias=False, kernel_init=init, rngs=rngs)

        self.W_q, self.W_k = linear(features, heads * self.K), linear(features, keys)
        self.W_v = linear(features, self.kv_heads * self.V)
        self.W_g = None if self.f is None else linear(features, values)
        self.W_o = linear(values, features, nnx.initializers.xavier_uniform())
        shape = (self.V,) if norm == "shared rms" else (heads, self.V)
        self.norm = Norm(*shape, eps=norm_eps, **NORMS[option("norm", norm, NORMS)])

    def initial(self):
        S = jnp.zeros((self.heads, self.K, self.V))
        return RetentionState(S, jnp.zeros((), jnp.int32))

    def log_gamma(self) -> Array:
        """[heads]."""
        return jnp.asarray(np.log1p(-(2.0 ** (-5 - np.arange(self.heads)))))

    def counts(self, place: Array) -> Array:
        """sum_{j <= place} gamma^j [T, heads]."""
        log_gamma = self.log_gamma()[None]
        passed = (place + 1).astype(log_gamma.dtype)[:, None]
        return jnp.expm1(passed * log_gamma) / jnp.expm1(log_gamma)

    def run(self, x, h, flow):
        place, last = places(h.place, len(x), flow=flow)
        log_gamma, K = self.log_gamma(), self.K
        if self.xpos:
            decay = log_gamma[:, None] + log_zeta(K)[None]
            decay = jnp.broadcast_to(decay[None], (len(x), *decay.shape))
            rate = jnp.asarray(10_000.0 ** (-np.arange(0, K, 2) / K))
        else:
            decay, rate = log_gamma, jnp.asarray(10_000.0 ** -np.linspace(0.0, 1.0, K // 2))
        angle = place.astype(rate.dtype)[:, None] * rate[None]
        turned = (lambda z: rotary(z, place)) if self.halves else (lambda z: turn(z, angle))
        q = turned(self.qk_map(split_heads(self.W_q(x), self.heads)))
        k, v = (split_heads(W(x), self.kv_heads) for W in (self.W_k, self.W_v))
        k = turned(self.qk_map(k)) * K**-0.5
        k, v = (
            share_heads("retnet", name, z, self.heads) for name, z in (("k", k), ("v", wide(v)))
        )
        o, S = linear_attention(
            q,
            k,
            v,
            decay.astype(accumulation_dtype(q.dtype)),
            h.S,
            flow=flow,
        )
        if self.scale == "scores":
            o = o * lax.stop_gradient(self.by_scores(q, k, h.now.S))[:, :, None].astype(o.dtype)
        elif self.scale == "count":
            o = o * lax.rsqrt(self.counts(place))[:, :, None].astype(o.dtype)
        o = self.norm(o)
        o = merge_heads(o).astype(x.dtype)
        if self.W_g is not None and self.f is not None:
            o = self.f(self.W_g(x)) * o
        return self.W_o(o), RetentionState(S, last)

    def by_scores(self, q, k, S) -> Array:
        """[T, heads]: one over the largest of 1, the row's scores and what entered the call."""
        t = jnp.arange(len(q))
        lag = (t[:, None] - t[None]).astype(self.log_gamma().dtype)
        decay = jnp.where(lag[None] >= 0, self.log_gamma()[:, None, None] * lag[None], -jnp.inf)
        count = self.counts(t).T  # [heads, T]
        past = (lag >= 0)[None]  # what is ahead is cut off, not multiplied by zero
        scores = jnp.where(past, jnp.einsum("thk,shk->hts", q, k), 0)
        scores = jnp.abs(scores * jnp.exp(decay)).sum(-1)
        entered = jnp.abs(S).sum(1).max(1)[:, None] / count[:, -1:]
        largest = jnp.maximum(scores * lax.rsqrt(count), jnp.broadcast_to(entered, count.shape))
        return (lax.rsqrt(count) / jnp.clip(largest, 1, 5e4)).T


class RetNet(Blocks):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        value_size: int | None = None,
        xpos: bool = False,
        gate: str = "swish",
        expansion: float = 2.0,
        norm: str = "group",
        scale: str = "count",
        rngs: nnx.Rngs,
    ):
        inner = int(expansion * features)
        retention = Retention(
            features,
            heads=heads,
            kv_heads=kv_heads,
            value_size=value_size,
            xpos=xpos,
            gate=gate,
            norm=norm,
            scale=scale,
            rngs=rngs,
        )
        self.heads, self.K, self.V = heads, retention.K, retention.V
        super().__init__(
            features,
            [retention],
            norm=lambda: Norm(features, centre=True, bias=True, eps=1e-5),
            feed=lambda: nnx.Sequential(
                nnx.Linear(features, inner, rngs=rngs),
                gelu,
                nnx.Linear(inner, features, rngs=rngs),
            ),
        )
