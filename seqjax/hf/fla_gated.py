"""Gated linear recurrences of flash-linear-attention, in the shell of `seqjax.hf.fla`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.hf.config import UNREAD, Config
from seqjax.hf.decoder import Description, Names, under
from seqjax.hf.fla import convolution, shell, whole
from seqjax.hf.parts import Part
from seqjax.hf.tensors import Joined
from seqjax.layers.elementwise.hgru import HGRU
from seqjax.layers.linear_attention.gla import GLA
from seqjax.layers.linear_attention.gsa import GSA
from seqjax.layers.linear_attention.hgrn2 import HGRN2
from seqjax.layers.linear_attention.retnet import Retention
from seqjax.nn.base import Layer, Precise

MAPS = {
    "None": "identity",
    "identity": "identity",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "sqrelu": "relu2",
    "sigmoid": "sigmoid",
}


def heads_of(config: Config, heads: int, expand_k: float, expand_v: float) -> dict[str, Any]:
    """Heads and the sizes of their keys and values, as multiples of hidden_size / num_heads."""
    features, heads = config.size("hidden_size"), config.size("num_heads", heads)
    return dict(
        heads=heads,
        kv_heads=config.size("num_kv_heads", heads),
        key_size=whole(config, "expand_k", config("expand_k", expand_k) * features / heads),
        value_size=whole(config, "expand_v", config("expand_v", expand_v) * features / heads),
    )


def norm(config: Config) -> str:
    """The kind of the norm on what heads read."""
    return "rms" if config("elementwise_affine", True) else "plain"


def gate_norm(config: Config, gated: bool) -> str:
    """What the tensor of the norm before the gate is called."""
    fused = config("fuse_norm", True)
    return "g_norm_swish_gate" if gated and fused else "g_norm"


def convolved(sizes: dict[str, Any]) -> Joined:
    """The convolutions of q, k and v side by side."""
    keys, values = (sizes["kv_heads"] * sizes[name] for name in ("key_size", "value_size"))
    return Joined("conv", (sizes["heads"] * sizes["key_size"], keys, values))


def gla(config: Config) -> Description:
    """Gated linear attention of flash-linear-attention: fla-hub/gla-1.3B-100B, gla-2.7B-100B.

        S_t = Diag(alpha_t) S_{t-1} + k_t v_t^T,   o_t = K^-1/2 S_t^T q_t
        alpha_t = sigmoid(W_2 W_1 x_t + b)^(1/16),   y_t = W_o (RMSNorm(o_t) * SiLU(W_g x_t))

    arXiv:2312.06635. With use_short_conv q, k and v are SiLU(conv(.)) of what they were.
    """
    config.ignore(UNREAD, "use_gk use_gv")
    sizes, gated = heads_of(config, 4, 0.5, 1.0), config("use_output_gate", True)
    layer = partial(
        GLA,
        config.size("hidden_size"),
        norm=norm(config),
        norm_eps=config("norm_eps", 1e-6),
        output_gate=gated,
        gate_bias=False,
        qk_map=config.choice("feature_map", "None", MAPS),
        conv=convolution(config, default=False),
        lower_bound=config("clamp_min", None),
        **sizes,
    )
    names: Names = {
        "q_proj": "W_q",
        "k_proj": "W_k",
        "v_proj": "W_v",
        "g_proj": "W_r",
        "gk_proj.0": "W_alpha1",
        "gk_proj.1": "W_alpha2",
        "gk_proj.1.bias": "b_alpha",
        ("q_conv1d", "k_conv1d", "v_conv1d"): convolved(sizes),
        gate_norm(config, gated): "norm",
        "o_proj": "W_o",
    }
    return shell(config, (layer, names, "attn"))


def retnet(config: Config) -> Description:
    """RetNet of flash-linear-attention: fla-hub/retnet-1.3B-100B, retnet-2.7B-100B.

        S_n = gamma_h S_{n-1} + k_n v_n^T,   o_n = K^-1/2 S_n^T q_n,   gamma_h = 1 - 2^{-5-h}
        y_n = W_o (RMSNorm(o_n) * SiLU(W_g x_n)),   q and k turned by their position

    arXiv:2307.08621.
    """
    config.ignore(UNREAD, "use_short_conv conv_size")
    sizes, gated = heads_of(config, 8, 1.0, 2.0), config("use_output_gate", True)
    layer = partial(
        Retention,
        config.size("hidden_size"),
        norm="shared rms" if norm(config) == "rms" else "rms",
        norm_eps=config("norm_eps", 1e-6),
        gate="swish" if gated else "none",
        qk_map=config.choice("feature_map", "None", MAPS),
        scale="none",
        halves=True,
        **sizes,
    )
    names: Names = {
        "q_proj": "W_q",
        "k_proj": "W_k",
        "v_proj": "W_v",
        "g_proj": "W_g",
        gate_norm(config, gated): "norm",
        "o_proj": "W_o",
    }
    return shell(config, (layer, names, "attn"), ratio=2)


class Bounds(nnx.Module):
    """Lower bounds [depth, features] of the forget gates of all blocks, learned together."""

    def __init__(self, depth: int, features: int, *, rngs: nnx.Rngs):
        del rngs
        self.Gamma = Precise(jnp.zeros((depth, features)))

    def __call__(self, place: int) -> jax.Array:
        share = jax.nn.softmax(self.Gamma[...], axis=0)
        return jnp.sum(share[1 : place + 1], axis=0)


class Bounded(nnx.Module):
    """A layer that is called with the lower bounds that blocks share."""

    def __init__(self, layer: Callable[..., Any], place: int, *, rngs: nnx.Rngs):
        self.layer, self.place = layer(rngs=rngs), place
        self.features, self.out_features = self.layer.features, self.layer.out_features

    def parts(self, shared: Bounds) -> Layer:
        return self.layer

    def run(self, shared: Bounds, x, h, flow):
        return self.layer.bounded(x, h, flow, shared(self.place))


def bounded(config: Config, mixer: Part, size: int) -> Description:
    """The shell, with lower bounds [depth, size] unless use_lower_bound is off."""
    if not config("use_lower_bound", True):
        return shell(config, mixer)
    layer, names, prefix = mixer
    names = {theirs: under("layer", ours) for theirs, ours in names.items()}
    return shell(
        config,
        lambda i: (partial(Bounded, layer, i), names, prefix),
        using=0,
        shared=(partial(Bounds, config.depth(), size),),
        names={"model.lower_bounds": "shared.0.Gamma"},
    )


def hgrn2(config: Config) -> Description:
    """HGRN2 of flash-linear-attention: fla-hub/hgrn2-1.3B-100B, hgrn2-2.7B-100B.

        S_t = Diag(f_t) S_{t-1} + (1 - f_t) v_t^T,   o_t = S_t^T SiLU(W_q x_t)
        f_t = gamma + (1 - gamma) sigmoid(W_f x_t),   y_t = W_o RMSNorm(o_t)

    arXiv:2404.07904. gamma grows from block to block: sums of the softmax of lower_bounds.
    """
    features = config.size("hidden_size")
    expansion = config.size("expand_ratio", None)
    if expansion is None:
        heads = config.size("num_heads", None) or features // 128 or 1
        expansion = whole(config, "num_heads", features / heads)
    else:
        config.ignore("expand_ratio is read", "num_heads")
        whole(config, "expand_ratio", features / expansion)
    layer = partial(
        HGRN2,
        features,
        expansion=expansion,
        released=True,
        norm=norm(config),
        conv=convolution(config, default=False),
    )
    names: Names = {
        "q_proj": "W_q",
        "f_proj": "W_f",
        "i_proj": "W_v",
        ("q_conv1d", "f_conv1d", "i_conv1d"): Joined("conv", (features,) * 3),
        "g_norm": "norm",
        "o_proj": "W_o",
    }
    return bounded(config, (layer, names, "attn"), features)


def hgrn(config: Config) -> Description:
    """HGRN of flash-linear-attention: fla-hub/hgrn-1.3B-100B, hgrn-2.7B-100B.

        h_t = f_t * h_{t-1} + (1 - f_t) * SiLU(W_i x_t)
        f_t = gamma + (1 - gamma) sigmoid(W_f x_t)
        y_t = W_o (RMSNorm(h_t) * SiLU(W_g x_t))

    arXiv:2311.04823. gamma grows from block to block: sums of the softmax of lower_bounds.
    """
    features = config.size("hidden_size")
    size = whole(config, "expand_ratio", config("expand_ratio", 1) * features)
    layer = partial(
        HGRU,
        features,
        complex_gate=False,
        inner=size,
        bias=False,
        norm=norm(config),
        norm_eps=config("norm_eps", 1e-6),
        conv=convolution(config, default=False),
    )
    names: Names = {
        "i_proj": "W_c",
        "f_proj": "W_mu",
        "g_proj": "W_g",
        ("i_conv1d", "f_conv1d"): Joined("conv", (size, size)),
        "g_norm": "norm",
        "o_proj": "W_o",
    }
    return bounded(config, (layer, names, "attn"), size)


def gsa(config: Config) -> Description:
    """Gated slot attention of flash-linear-attention: fla-hub/gsa-1.3B-100B, gsa-2.7B-100B.

        K_t = K_{t-1} Diag(f_t) + k_t s_t^T,   V_t = Diag(f_t) V_{t-1} + s_t v_t^T,   s_t = 1 - f_t
        o_t = V_t^T softmax(K_t^T q_t),   f_t = sigmoid(W_f x_t)^(1/8)
        y_t = W_o RMSNorm(SiLU(o_t)),   q, k and v = SiLU(W x)

    arXiv:2409.07146.
    """
    config.ignore(UNREAD, "clamp_min clamp_max use_output_gate use_norm")
    config.only("expand_v", "the norm is as wide as the features", 1)
    sizes = heads_of(config, 4, 1.0, 1.0)
    slots = config.size("num_slots", sizes["key_size"])
    layer = partial(
        GSA,
        config.size("hidden_size"),
        slots=slots,
        tau=config("gate_logit_normalizer", 8),
        norm=norm(config),
        qk_map=config.choice("feature_map", "swish", {"swish": "silu", "relu": "relu"}),
        conv=convolution(config, default=False),
        **sizes,
    )
    names: Names = {
        "q_proj": "W_q",
        "k_proj": "W_k",
        "v_proj": "W_v",
        "f_proj": "W_f",
        ("q_conv1d", "k_conv1d", "v_conv1d"): convolved(sizes),
        "g_norm": "norm",
        "o_proj": "W_o",
    }
    return shell(config, (layer, names, "attn"))
