"""What the descriptions of several architectures share: attention, feed-forward, blocks of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from flax import nnx

from seqjax.hf.config import Config
from seqjax.hf.decoder import Branch, Description, Names
from seqjax.hf.tensors import Halves, Stacked, Transposed
from seqjax.layers.attention.attention import Attention
from seqjax.nn.base import Layer
from seqjax.nn.convolution import ShortConv
from seqjax.nn.experts import MoE
from seqjax.nn.linear import GLU
from seqjax.nn.norms import Norm

ATTENTION: Names = {
    "q_proj": "W_q",
    "k_proj": "W_k",
    "v_proj": "W_v",
    "o_proj": "W_o",
    "q_norm": "q_norm",
    "k_norm": "k_norm",
}
# What configs call the blocks with a recurrence (True) and with full attention.
KINDS = {"linear_attention": True, "full_attention": False}
MIXERS = {**KINDS, "mamba": True, "attention": False}
FEED: Names = {"gate_proj": "W_1", "up_proj": "W_2", "down_proj": "W_3"}
Part = tuple[Callable[..., nnx.Module], Names, str]  # a layer, its tensors, and under which prefix


@dataclass(frozen=True)
class Scaled:
    """f(scale z)."""

    f: Callable[[jax.Array], jax.Array]
    scale: float

    def __call__(self, z: jax.Array) -> jax.Array:
        return self.f(self.scale * z)


def attention(
    config: Config, *, layer: Any = Attention, **options: Any
) -> Callable[..., nnx.Module]:
    """Grouped-query attention with the fields that most configs have."""
    features, heads = config.size("hidden_size"), config.size("num_attention_heads")
    settings = dict(
        heads=heads, kv_heads=config.size("num_key_value_heads", heads), window=config.context
    )
    if "head_size" not in options:
        settings["head_size"] = config.size("head_dim", features // heads)
    if "bias" not in options:
        settings["bias"] = config("attention_bias", False)
    return partial(layer, features, **{**settings, **options})


def feed(
    config: Config, inner: int | None = None, act: str = "silu", **options: Any
) -> Callable[..., GLU]:
    """A gated linear unit; act: its activation where the config has none."""
    f = config.activation("hidden_act", act)
    inner = inner or config.size("intermediate_size")
    return partial(GLU, config.size("hidden_size"), inner, f, **options)


def experts(config: Config, inner: int, **options: Any) -> Callable[..., nnx.Module]:
    f = config.activation("hidden_act")
    return partial(MoE, config.size("hidden_size"), inner, f, **options)


def expert_names(gate: str, up: str, down: str, at: str = "experts") -> Names:
    """One expert after the other, each a gated linear unit."""
    return {
        f"{at}.{{}}.{gate}": Stacked("W_1"),
        f"{at}.{{}}.{up}": Stacked("W_2"),
        f"{at}.{{}}.{down}": Stacked("W_3"),
    }


# All experts of a block in two tensors.
PACKED_EXPERTS: Names = {
    "experts.gate_up_proj": Halves("W_1", "W_2"),
    "experts.down_proj": Transposed("W_3"),
}


def block(prefix: str, norms: Sequence[str], *parts: Part, **options: Any) -> list[Branch]:
    """Branches with a norm before each: the layers of one block under `prefix`."""
    return [
        Branch(layer, names, f"{prefix}.{at}".rstrip("."), norm=f"{prefix}.{norm}", **options)
        for norm, (layer, names, at) in zip(norms, parts, strict=True)
    ]


def describe(
    config: Config,
    branches: Sequence[Branch],
    *,
    eps: float,
    features: int | None = None,
    whole: Config | None = None,
    **fields: Any,
) -> Description:
    """The rest of a description: what is before the first branch and after the last.

    features: where the config does not call them hidden_size.
    whole: the config around that of a text model: it has the head, tied or not.
    """
    offset = fields.pop("offset", 0.0)
    if whole is not None:
        config.ignore("that of the whole model is read", "tie_word_embeddings")
    tied = (whole or config)("tie_word_embeddings", fields.pop("tied", False))
    attends = any("q_proj" in str(branch.names) for branch in branches)
    fields.setdefault("context", config.context if attends else None)
    return Description(
        vocabulary=config.size("vocab_size"),
        features=features or config.size("hidden_size"),
        branches=tuple(branches),
        norm=partial(Norm, eps=eps, offset=offset),
        tied=tied,
        **fields,
    )


class Parallel(Layer):
    """sum_k out_k layer_k(in_k x)."""

    def __init__(self, layers, inputs, outputs, *, rngs: nnx.Rngs):
        self.layers = nnx.List([make(rngs=rngs) for make in layers])
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.features = self.layers[0].features
        self.out_features = self.layers[0].out_features

    def parts(self):
        return tuple(self.layers)

    def run(self, x, h, flow):
        y, states = 0, []
        for layer, state, scale, out in zip(self.layers, h, self.inputs, self.outputs):
            z, state = layer.run(scale * x, state, flow.of(layer.evaluators))
            y = y + out * z
            states.append(state)
        return y, tuple(states)


class GatedShortConv(Layer):
    """y = W_out (C * conv(B * x)) with [B, C, x] = W_in x: the mixer of LFM2 (arXiv:2511.23404)."""

    def __init__(self, features: int, *, conv: int = 3, bias: bool = False, rngs: nnx.Rngs):
        self.features = self.out_features = features
        self.W_in = nnx.Linear(features, 3 * features, use_bias=bias, rngs=rngs)
        self.conv = ShortConv(features, conv, bias=bias, rngs=rngs)
        self.W_out = nnx.Linear(features, features, use_bias=bias, rngs=rngs)

    def initial(self):
        return self.conv.initial()

    def run(self, x, h, flow):
        B, C, u = jax.numpy.split(self.W_in(x), 3, axis=1)
        u, h = self.conv(B * u, h, flow)
        return self.W_out(C * u), h
