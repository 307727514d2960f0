"""Sums without gates of flash-linear-attention: linear attention, and least squares (MesaNet)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.hf.config import RUNNING, UNREAD, Config
from seqjax.hf.decoder import Description, Names
from seqjax.hf.fla import shell
from seqjax.hf.fla_gated import heads_of, norm
from seqjax.hf.tensors import Joined, Shaped
from seqjax.layers.fast_weights.mesa_net import MesaNet
from seqjax.nn.activations import identity, relu
from seqjax.nn.base import Layer
from seqjax.nn.feature_maps import dpfp, elu_plus_one
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.linear_attention import linear_attention


class Hadamard(nnx.Module):
    """(W_1 z + b_1) * (W_2 z + b_2), for all heads alike."""

    def __init__(self, size: int, *, rngs: nnx.Rngs):
        self.size = size
        self.W_1, self.W_2 = (nnx.Linear(size, size, rngs=rngs) for _ in range(2))

    def __call__(self, z: Array) -> Array:
        return self.W_1(z) * self.W_2(z)


class Hedgehog(nnx.Module):
    """softmax([2 u, -2 u]), u = W z + b, for all heads alike (arXiv:2402.04347)."""

    def __init__(self, size: int, *, rngs: nnx.Rngs):
        self.size, self.W = 2 * size, nnx.Linear(size, size, rngs=rngs)

    def __call__(self, z: Array) -> Array:
        u = 2 * self.W(z)
        return jax.nn.softmax(jnp.concatenate([u, -u], axis=-1))


class Rectified(nnx.Module):
    """relu(W z), for all heads alike (T2R, arXiv:2103.13076)."""

    def __init__(self, size: int, *, rngs: nnx.Rngs):
        self.size, self.W = size, nnx.Linear(size, size, use_bias=False, rngs=rngs)

    def __call__(self, z: Array) -> Array:
        return relu(self.W(z))


class Plain(nnx.Module):
    """f(z), which has no weights; grows: how many times as many channels it makes."""

    def __init__(
        self, f: Callable[[Array], Array], grows: int, size: int, *, rngs: nnx.Rngs | None = None
    ):
        del rngs
        self.f, self.size = f, grows * size

    def __call__(self, z: Array) -> Array:
        return self.f(z)


NU = 4  # of dpfp
MAPS: dict[str, Callable[..., Any]] = {
    "elementwise_product": Hadamard,
    "hedgehog": Hedgehog,
    "t2r": Rectified,
    "dpfp": partial(Plain, partial(dpfp, nu=NU), 2 * NU),
    "elu": partial(Plain, elu_plus_one, 1),
    "relu": partial(Plain, relu, 1),
    "identity": partial(Plain, identity, 1),
}
WEIGHTS: dict[str, Names] = {  # of the maps that have some
    "elementwise_product": {"layer1": "W_1", "layer2": "W_2"},
    "hedgehog": {"layer": "W"},
    "t2r": {"layer": "W"},
}


class NormedAttention(Layer):
    """y_t = W_o rms(K^-1/2 phi(q_t)^T S_t) per head, S_t = S_{t-1} + psi(k_t) v_t^T

    (2006.16236, without its denominator), with maps phi of queries and psi of keys; heads /
    kv_heads queries in a row share keys and values. sums: of queries and of keys, whether they are
    divided by the sum of their features + 1e-4.
    """

    ops = ("linear_attention",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int,
        kv_heads: int,
        key_size: int,
        value_size: int,
        phi: Callable[..., Any],
        sums: tuple[bool, bool],
        norm: str,
        norm_eps: float,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.kv_heads, self.K, self.V = heads, kv_heads, key_size, value_size
        self.shared, self.sums = per_head("num_heads", heads, kv_heads), sums

        def linear(n, m):
            return nnx.Linear(n, m, use_bias=False, rngs=rngs)

        self.W_q, self.W_k = (linear(features, n * key_size) for n in (heads, kv_heads))
        self.W_v = linear(features, kv_heads * value_size)
        self.W_o = linear(heads * value_size, features)
        self.phi, self.psi = (phi(key_size, rngs=rngs) for _ in range(2))
        self.norm = Norm(value_size, weight=norm == "rms", eps=norm_eps)

    def initial(self):
        return jnp.zeros((self.heads, self.phi.size, self.V))

    def run(self, x, h, flow):
        q = self.phi(split_heads(self.W_q(x), self.heads))
        k, v = (split_heads(W(x), self.kv_heads) for W in (self.W_k, self.W_v))
        q, k = (
            z / (jnp.sum(z, axis=-1, keepdims=True) + 1e-4) if by_sum else z
            for z, by_sum in zip((q, self.psi(k)), self.sums)
        )
        k, v = (jnp.repeat(z, self.shared, axis=1) for z in (k, wide(v)))
        o, S = linear_attention(self.phi.size**-0.5 * q, k, v, None, h, flow=flow)
        return self.W_o(merge_heads(self.norm(o)).astype(x.dtype)), S


def linear_attn(config: Config) -> Description:
    """Linear attention of flash-linear-attention.

        S_t = S_{t-1} + phi(k_t) v_t^T,   o_t = K^-1/2 phi(q_t)^T S_t,   y_t = W_o RMSNorm(o_t)

    arXiv:2006.16236, without its denominator. phi is one of the maps of the package, K how many
    features it makes; learned ones are of queries and of keys apart.
    """
    config.only("norm_feature_map", "outputs are divided by the sum of their weights", False)
    phi = config.choice("feature_map", "elementwise_product", MAPS)
    word = config("feature_map", "elementwise_product")
    if word in WEIGHTS:
        config.only("tie_feature_map_qk", "queries and keys share a map", False)
    else:
        config.ignore("the map has no weights", "tie_feature_map_qk")
    layer = partial(
        NormedAttention,
        config.size("hidden_size"),
        phi=phi,
        sums=(config("norm_q", False), config("norm_k", False)),
        norm=norm(config),
        norm_eps=config("norm_eps", 1e-6),
        **heads_of(config, 4, 1.0, 1.0),
    )
    names: Names = {
        "q_proj": "W_q",
        "k_proj": "W_k",
        "v_proj": "W_v",
        "norm": "norm",
        "o_proj": "W_o",
        **{
            f"feature_map_{of}.{theirs}": f"{phi}.{ours}"
            for of, phi in (("q", "phi"), ("k", "psi"))
            for theirs, ours in WEIGHTS.get(word, {}).items()
        },
    }
    return shell(config, (layer, names, "attn"))


def mesa_net(config: Config) -> Description:
    """MesaNet of flash-linear-attention.

        G_t = gamma_t G_{t-1} + beta_t v_t k_t^T,   H_t = gamma_t H_{t-1} + beta_t k_t k_t^T
        o_t = G_t (H_t + Lambda)^-1 q_t,   y_t = W_o RMSNorm(o_t)

    arXiv:2506.05233. Of single steps the equation is solved exactly, of many at once by
    max_cg_step_training conjugate gradients; those of the reference stop a little short of it.
    """
    config.ignore(UNREAD, "use_short_conv")
    config.ignore(RUNNING, "max_cg_step_decoding")
    heads, size = config.size("num_heads", 16), config.size("head_dim", 128)
    layer = partial(
        MesaNet,
        config.size("hidden_size"),
        heads=heads,
        key_size=size,
        value_size=size,
        conv=config.size("conv_size", 4),
        output_gate=config("use_output_gate", False),
        floor=config("lambda_lower_bound", 0.25),
        iterations=config.size("max_cg_step_training", 30),
        norm_eps=config("norm_eps", 1e-6),
    )
    keys = (heads * size,) * 2
    names: Names = {
        ("q_proj", "k_proj"): Joined("W_qk", keys),
        ("q_conv1d", "k_conv1d"): Joined("conv", keys),
        "v_proj": "W_v",
        "a_proj": "W_gamma",
        "b_proj": "W_beta",
        "lambda_params": Shaped("lam", (-1,)),
        "g_proj": "W_g",
        "o_norm": "norm",
        "o_proj": "W_o",
    }
    return shell(config, (layer, names, "attn"))
