"""ZAYA1: attention to convolved queries and keys, and routers that hear the one before them.

The stream of the model holds D channels and, beside them, the R of the last router.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.hf.config import Config
from seqjax.hf.decoder import Branch, Description, Names, moved
from seqjax.hf.parts import PACKED_EXPERTS, describe
from seqjax.hf.streams import along
from seqjax.hf.tensors import Shaped
from seqjax.nn.activations import gelu
from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import ShortConv, token_shift
from seqjax.nn.experts import Experts
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.look_back import Cache, empty
from seqjax.ops.softmax_attention import softmax_attention


class Moved(nnx.Module):
    """(x + bias) * scale, channel by channel."""

    def __init__(self, features: int):
        self.bias, self.scale = Precise(jnp.zeros(features)), Precise(jnp.ones(features))

    def __call__(self, x: Array) -> Array:
        return ((x + along(self.bias[...], x)) * along(self.scale[...], x)).astype(x.dtype)


class Entered(nnx.Module):
    """A moved embedding, and zeros for the router."""

    def __init__(self, features: int, router: int):
        self.moved, self.router = Moved(features), router

    def __call__(self, x: Array) -> Array:
        return jnp.pad(self.moved(x), (*((0, 0),) * (x.ndim - 1), (0, self.router)))


class Left(nnx.Module):
    """The norm of the stream without the router's channels."""

    def __init__(self, features: int, eps: float, *, rngs: nnx.Rngs | None = None):
        del rngs
        self.norm, self.features = Norm(features, eps=eps), features

    def __call__(self, x: Array) -> Array:
        return self.norm(x[..., : self.features])


class CCAState(NamedTuple):
    cache: Cache
    window: Array  # [taps of the first convolution - 1, channels of q and k]
    convolved: tuple[Array, ...]  # [1, channels], one for each tap of the second but the newest
    before: Array  # [1, features], the step before


class CCA(Layer):
    """Compressed convolutional attention (arXiv:2510.04476).

        [q, k] = W x;  c = conv2(conv1([q, k]))       conv1 by channel, conv2 by head, with biases
        q <- c_q + (q + k) / 2,  k <- c_k + (mean of its queries + k) / 2
        q <- K^1/2 q / |q|,  k <- tau_g K^1/2 k / |k|
        v = [W_v x_t, W_v' x_{t-1}],  y = W_o softmax(K^-1/2 q k) v

    with rotary positions; heads / kv_heads queries in a row share a key.
    """

    ops = ("softmax_attention",)
    learned = ""

    def __init__(
        self,
        features: int,
        *,
        heads: int,
        kv_heads: int,
        head_size: int,
        taps: tuple[int, int],
        window: int,
        bias: bool,
        rngs: nnx.Rngs,
        **rope,
    ):
        self.features = self.out_features = features
        self.heads, self.kv_heads, self.K = heads, kv_heads, head_size
        self.shared = per_head("num_attention_heads", heads, kv_heads)
        self.window, self.rope = window, rope
        keys, values = heads * head_size, per_head("keys", kv_heads * head_size, 2)

        def linear(n, m):
            return nnx.Linear(n, m, use_bias=bias, rngs=rngs)

        self.W_q, self.W_k = linear(features, keys), linear(features, 2 * values)
        self.W_v, self.W_v_before = linear(features, values), linear(features, values)
        self.W_o = linear(keys, features)
        channels, both = keys + 2 * values, heads + kv_heads
        self.conv = ShortConv(channels, taps[0], bias=False, rngs=rngs)
        init = nnx.initializers.normal((head_size * taps[1]) ** -0.5)
        self.W_2 = nnx.Param(init(rngs.params(), (both, head_size, head_size, taps[1])))
        self.bias_1, self.bias_2 = (nnx.Param(jnp.zeros(channels)) for _ in range(2))
        self.tau = Precise(jnp.zeros(kv_heads))

    def initial(self):
        keys = jnp.zeros((self.window - 1, self.kv_heads, self.K))
        one = jnp.zeros((1, *self.bias_1.shape))
        convolved = (one,) * (self.W_2.shape[3] - 1)
        return CCAState(
            empty((keys, keys)), self.conv.initial(), convolved, jnp.zeros((1, self.features))
        )

    def run(self, x, h, flow):
        q, k = self.W_q(x), self.W_k(x)
        c, window = self.conv(jnp.concatenate([q, k], axis=1), h.window, flow)
        c, convolved = self.by_head(c, h.convolved, flow)
        q, k = split_heads(q, self.heads), split_heads(k, self.kv_heads)
        q = (q + jnp.repeat(k, self.shared, axis=1)) / 2
        k = jnp.mean(q.reshape(len(q), self.kv_heads, self.shared, self.K), axis=2)
        q, k = self.long(c[:, : self.heads] + q), self.long(c[:, self.heads :] + k)
        k = k * self.tau[...][None, :, None].astype(k.dtype)
        past, before = token_shift(x, h.before, flow=flow)
        v = jnp.concatenate([self.W_v(x), self.W_v_before(past)], axis=1)
        v = split_heads(v, self.kv_heads)
        y, cache = softmax_attention(q, k, v, h.cache, flow=flow, **self.rope)
        y = self.W_o(merge_heads(y).astype(x.dtype))
        return y, CCAState(cache, window, convolved, before)

    def by_head(self, c, h, flow):
        """conv2 of c and what it keeps; before the start the first convolution gives its bias."""
        y, kept = split_heads(jnp.broadcast_to(self.bias_2[...], c.shape), len(self.W_2)), []
        for tap in range(self.W_2.shape[3] - 1, -1, -1):
            z = split_heads(c + self.bias_1[...][None], len(self.W_2))
            y = y + jnp.einsum("thi,hoi->tho", z, self.W_2[..., tap])
            if tap:
                c, one = token_shift(c, h[len(kept)], flow=flow)
                kept.append(one)
        return y, tuple(kept)

    def long(self, z):
        """K^1/2 z / |z|."""
        w = wide(z)
        size = jnp.sum(w * w, axis=-1, keepdims=True)
        least = jnp.finfo(w.dtype).eps ** 2
        return (w * (self.K**0.5 * lax.rsqrt(jnp.maximum(size, least)))).astype(z.dtype)


class Attended(Layer):
    """x <- moved(attention(norm(x))) + moved(x), the router's channels as they are."""

    block = True

    def __init__(self, attend: Callable[..., CCA], router: int, *, norm_eps: float, rngs: nnx.Rngs):
        self.layer = attend(rngs=rngs)
        D = self.layer.features
        self.features = self.out_features = D + router
        self.norm, self.new, self.old = Norm(D, eps=norm_eps), Moved(D), Moved(D)

    def parts(self):
        return self.layer

    def run(self, x, h, flow):
        x, r = jnp.split(x, (self.layer.features,), axis=1)
        y, h = self.layer.run(self.norm(x), h, flow.of(self.layer.evaluators))
        return jnp.concatenate([self.new(y) + self.old(x), r], axis=1), h


class RouterMLP(nnx.Module):
    """W_3 gelu(W_2 gelu(W_1 norm(r)))."""

    def __init__(self, size: int, classes: int, *, norm_eps: float, rngs: nnx.Rngs):
        self.norm = Norm(size, eps=norm_eps)
        self.W_1, self.W_2 = (nnx.Linear(size, size, rngs=rngs) for _ in range(2))
        self.W_3 = nnx.Linear(size, classes, use_bias=False, rngs=rngs)

    def __call__(self, r: Array) -> Array:
        return self.W_3(gelu(self.W_2(gelu(self.W_1(self.norm(r))))))


class Routed(nnx.Module):
    """x <- moved(p_e E_e(z)) + moved(x),   z = norm(x),  r <- W z + scale r

    p = softmax(MLP(r)), e its best after a bias; the class after all experts is none of them.
    """

    block = True

    def __init__(
        self,
        features: int,
        inner: int,
        router: int,
        f: Callable[[Array], Array],
        *,
        experts: int,
        first: bool,
        norm_eps: float,
        rngs: nnx.Rngs,
    ):
        self.features, self.count = features, experts
        self.norm, self.new, self.old = (
            Norm(features, eps=norm_eps),
            Moved(features),
            Moved(features),
        )
        self.experts = Experts(features, inner, f, experts=experts, rngs=rngs)
        self.W = nnx.Linear(features, router, rngs=rngs)
        self.scale = None if first else Precise(jnp.ones(router))
        self.mlp = RouterMLP(router, experts + 1, norm_eps=norm_eps, rngs=rngs)
        self.choice_bias = Precise(jnp.zeros(experts + 1))

    def __call__(self, x: Array) -> Array:
        x, r = jnp.split(x, (self.features,), axis=-1)
        z = self.norm(x)
        new = self.W(z)
        r = new if self.scale is None else (new + along(self.scale[...], r) * r).astype(x.dtype)
        p = jax.nn.softmax(wide(self.mlp(r))).reshape(-1, self.count + 1)
        best = jnp.argmax(p + self.choice_bias[...][None], axis=1, keepdims=True)
        weight = jnp.where(best < self.count, jnp.take_along_axis(p, best, axis=1), 0)
        best = jnp.where(best < self.count, best, 0)
        y = self.experts.send(z.reshape(-1, self.features), weight, best).reshape(x.shape)
        return jnp.concatenate([self.new(y) + self.old(x), r], axis=-1)


CONVOLVED: Names = {
    "qkv_proj.q_proj": "W_q",
    "qkv_proj.k_proj": "W_k",
    "qkv_proj.v_proj_current": "W_v",
    "qkv_proj.v_proj_delayed": "W_v_before",
    "qkv_proj.conv_qk_depthwise": "conv",
    "qkv_proj.conv_qk_depthwise.bias": "bias_1",
    "qkv_proj.conv_qk_grouped.bias": "bias_2",
    "qk_norm.temp": "tau",
    "o_proj": "W_o",
}
ROUTED: Names = {
    "gate.down_proj": "W",
    "gate.router_mlp.norm": "mlp.norm",
    "gate.router_mlp.fc1": "mlp.W_1",
    "gate.router_mlp.fc2": "mlp.W_2",
    "gate.router_mlp.out_proj": "mlp.W_3",
    "gate.balancing_biases": "choice_bias",
}
BASES = {"hybrid": 5e6, "hybrid_sliding": 1e4}


def residual(at: str) -> Names:
    return {
        f"{at}.{theirs}_{what}": f"{ours}.{what}"
        for theirs, ours in (("hidden_states", "new"), ("residual", "old"))
        for what in ("scale", "bias")
    }


def zaya(config: Config) -> Description:
    """ZAYA1 (Zyphra/ZAYA1-8B), arXiv:2511.17127.

        x <- s (cca(n) + b) + s' (x + b')       n = rms(x); cca: arXiv:2510.04476
        x <- s (p_e E_e(n) + b) + s' (x + b')   e the best of p = softmax(mlp(r)), n = rms(x)
        r <- W n + scale r                      what the router of the next block hears

    s, b, s' and b' are of each branch, and there are two of the embedding. Compressed convolutional
    attention sees queries and keys after two short convolutions, and values half of which are of
    the step before. The class after the last expert is none of them.
    """
    config.only("num_experts_per_tok", "the experts of a token", 1)
    features, eps = config.size("hidden_size"), config("rms_norm_eps", 1e-5)
    depth, router = config.depth(), config.size("router_hidden_size", 256)
    heads, groups = config.size("num_attention_heads"), config.size("num_key_value_heads", 2)
    size = config.size("head_dim", 128)
    kinds = config.each(
        "layer_types", depth, {name: name for name in BASES}, lambda: ["hybrid"] * depth
    )
    near = config.size("sliding_window", None)
    if "hybrid_sliding" in kinds and near is None:
        raise config.wrong(
            "sliding_window", "blocks of layer_types see a window, and none is given"
        )
    if near is None or "hybrid_sliding" not in kinds:
        config.ignore("no block sees a window", "sliding_window")
    windows = {"hybrid": config.context, "hybrid_sliding": min(near or 1, config.context)}
    taps = config.size("cca_time0", 2), config.size("cca_time1", 2)
    turns = {kind: config.rope(0.5, BASES[kind], size=size, of=kind) for kind in set(kinds)}
    own = config.inside("rope_parameters")
    own.ignore("each kind of block has its own", "rope_type")
    own.ignore("no block is of this kind", " ".join(set(BASES) - set(kinds)))
    convolved = {
        **CONVOLVED,
        "qkv_proj.conv_qk_grouped.weight": Shaped("W_2", ((heads + groups) * size, size, taps[1])),
    }
    branches = []
    for i, kind in enumerate(kinds):
        at = f"model.layers.{i}"
        attend = partial(
            CCA,
            features,
            heads=heads,
            kv_heads=groups,
            head_size=size,
            taps=taps,
            window=windows[kind],
            bias=config("attention_bias", False),
            **turns[kind],
        )
        names = {
            "input_layernorm": "norm",
            **residual("post_attention_residual_scale"),
            **moved(convolved, "self_attn", "layer"),
        }
        branches.append(Branch(partial(Attended, attend, router, norm_eps=eps), names, at))
        routed = partial(
            Routed,
            features,
            config.size("moe_intermediate_size", 2048),
            router,
            config.activation("hidden_act"),
            experts=config.size("num_experts", 16),
            first=i == 0,
            norm_eps=eps,
        )
        mlp = {**ROUTED, **({"gate.router_states_scale": "scale"} if i else {})}
        names = {
            "post_attention_layernorm": "norm",
            **residual("post_mlp_residual_scale"),
            **{f"mlp.{theirs}": ours for theirs, ours in mlp.items()},
            **moved(PACKED_EXPERTS, "mlp", "experts"),
        }
        branches.append(Branch(routed, names, at))
    entered = {f"model.input_hidden_states_{n}": f"embed.norm.moved.{n}" for n in ("scale", "bias")}
    return describe(
        config,
        branches,
        eps=eps,
        tied=True,
        context=config.context,
        enter=partial(Entered, features, router),
        leave=partial(Left, features, eps),
        names=entered,
        head_bias=config("lm_head_bias", False),
    )
