"""RWKV-6 and RWKV-7 of flash-linear-attention; releases of RWKV-7 for transformers are of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from flax import nnx

from seqjax.hf.config import RUNNING, TRAINING, Config
from seqjax.hf.decoder import Branch, Description, Names, moved
from seqjax.hf.fla import whole
from seqjax.hf.rwkv import finch
from seqjax.hf.tensors import Form, Rows, Rule, Shaped, Transposed, at
from seqjax.layers.rwkv.rwkv6 import RWKV6
from seqjax.layers.rwkv.rwkv7 import RWKV7
from seqjax.nn.base import Layer
from seqjax.nn.norms import Norm

MIXED = "rwkvag"  # what the shifted tokens are mixed for, in the order of mu


class Stack(Layer):
    """Blocks of RWKV-7, one after the other: the values of the first enter all the others."""

    block = True

    def __init__(self, features: int, depth: int, *, rngs: nnx.Rngs, **options: Any):
        self.features = self.out_features = features
        self.blocks = nnx.List(
            [
                RWKV7(features, block=True, mixes_values=i > 0, rngs=rngs, **options)
                for i in range(depth)
            ]
        )

    def parts(self):
        return tuple(self.blocks)

    def run(self, x, h, flow):
        first, states = None, []
        for block, state in zip(self.blocks, h):
            x, v, state = block.mix(x, state, flow.of(block.evaluators), first)
            first = v if first is None else first
            states.append(state)
        return x, tuple(states)


def low_rank(theirs: str, ours: str, *, bias: bool = True) -> Names:
    names: Names = {
        f"attn.{theirs}.lora.0.weight": Transposed(f"{ours}.A"),
        f"attn.{theirs}.lora.2.weight": Transposed(f"{ours}.B"),
    }
    return {**names, f"attn.{theirs}.lora.2.bias": f"{ours}.bias"} if bias else names


NAMES: Names = {
    "attn_norm": "norms.0",
    "ffn_norm": "norms.1",
    tuple(f"attn.x_{j}" for j in MIXED): Rows("mu", (1, 1, -1)),
    **{f"attn.{name}": name for name in ("k_k", "k_a", "r_k")},
    **{f"attn.{j}_proj": f"W_{j}" for j in "rkvo"},
    **low_rank("w_lora", "w"),
    **low_rank("a_lora", "a"),
    **low_rank("g_lora", "g", bias=False),
    "attn.g_norm": "norm",
    "ffn.x_k": Shaped("channel_mixing.mu", (-1,)),
    "ffn.key": "channel_mixing.W_k",
    "ffn.value": "channel_mixing.W_v",
}


def ranks(config: Config, features: int, size: int) -> list[int]:
    """Of the low-rank maps of w, a, v and g; by default a rule of their sizes."""
    factors = {"decay": 2.5 * size / 64, "a": 2.5 * size / 64, "v": 1.7 * size / 64, "gate": 5.0}
    defaults = {"decay": 64, "a": 64, "v": 16, "gate": 128}
    found = []
    for name, factor in factors.items():
        field = f"{name}_low_rank_dim"
        by_rule = max(32, round(factor * features**0.5 / 32) * 32)
        absent = by_rule if field in config.fields else defaults[name]
        found.append(config.size(field, absent))
    return found


def shell(config: Config, features: int) -> dict[str, Any]:
    """Of the description of a model, what is around the blocks."""
    config.ignore(RUNNING, "attn_mode fuse_norm fuse_cross_entropy fuse_linear_cross_entropy")
    config.ignore(TRAINING, "use_l2warp")
    config.only("hidden_act", "the activation of the channel mixing", "sqrelu")
    config.only("norm_bias", "biases in the norms", True)
    config.only("attn", "blocks of softmax attention", None)
    eps = config("norm_eps", 1e-5)
    return dict(
        vocabulary=config.size("vocab_size"),
        features=features,
        norm=partial(Norm, centre=True, bias=True, eps=eps),
        embed="model.embeddings",
        first="model.layers.0.pre_norm" if config("norm_first", True) else None,
        tied=config("tie_word_embeddings", False),
    )


def inner_size(config: Config, ratio: float) -> int:
    """The width of the channel mixing."""
    config.ignore("intermediate_size is read", "hidden_ratio")
    given = config.size("intermediate_size", None)
    if given is not None:
        return given
    return -(-int(config.size("hidden_size") * config("hidden_ratio", ratio)) // 32) * 32


def rwkv7(config: Config) -> Description:
    """RWKV-7 "Goose" of flash-linear-attention: RWKV7-Goose-World and -Pile, fla-hub/rwkv7-*.

        x <- x + time_mixing(LayerNorm(x)),   x <- x + W_v relu(W_k lerp(LayerNorm(x)))^2
        S_t = (Diag(w_t) - kappa_t (kappa_t * a_t)^T) S_{t-1} + k_t v_t^T,   o_t = S_t^T r_t
        v_t = lerp(v_t, v_t of the first block, sigmoid(..))           in all but the first block

    arXiv:2503.14456. The embedding is normed; the norms have biases.
    """
    features, depth, eps = config.size("hidden_size"), config.depth(), config("norm_eps", 1e-5)
    heads = config.size("num_heads", None)
    size = config.size("head_dim", features // heads if heads else 64)
    config.only("num_heads", "heads are hidden_size / head_dim", features // size)
    wide = [features] * depth
    config.only("value_dim", "the values are as wide as the features", features, wide)
    # F.normalize, without fuse_norm, divides by the length itself
    key_eps = 1e-6 if config("fuse_norm", True) else 1e-24
    layer = partial(
        Stack,
        features,
        depth,
        heads=features // size,
        ranks=ranks(config, features, size),
        inner=inner_size(config, 4),
        norm_eps=eps,
        head_eps=size * eps,
        key_eps=key_eps,
    )
    names: dict[Any, Any] = {}
    for i in range(depth):
        names |= moved({**NAMES, **(low_rank("v_lora", "v") if i else {})}, f"{i}", f"blocks.{i}")
    branches = (Branch(layer, names, "model.layers"),)
    return Description(branches=branches, **shell(config, features))


ORDER = np.array([0, 2, 3, 4, 1])  # r, w, k, v, g of theirs -> r, k, v, g, w of ours


@dataclass(frozen=True)
class Ordered(Form):
    """Five blocks of rows [n, features], theirs in another order; `turned`: the matrix that is
    stored transposed, theirs, ours or none."""

    turned: str = ""

    def rules(self, model, theirs):
        shape = at(model, self.ours).shape

        def moved(rows, order):
            return rows.reshape(5, -1, rows.shape[-1])[order].reshape(rows.shape)

        def take(arrays):
            rows = moved(arrays[0].T if self.turned == "theirs" else arrays[0], ORDER)
            return [(rows.T if self.turned == "ours" else rows).reshape(shape)]

        def give(arrays):
            rows = arrays[0].T if self.turned == "ours" else arrays[0]
            rows = moved(rows.reshape(-1, rows.shape[-1]), np.argsort(ORDER))
            return [rows.T if self.turned == "theirs" else rows]

        yield Rule(theirs, (self.ours,), take, give)


NAMES_6: Names = {
    "attn_norm": "norms.0",
    "ffn_norm": "norms.1",
    "attn.x_bias": Ordered("mu"),
    "attn.x_proj.0.mu": "mu_x",
    "attn.x_proj.0.linear.weight": Ordered("A", "ours"),
    "attn.x_proj.2.weight": Ordered("B", "theirs"),
    "attn.w_proj.linear.lora.0.weight": Transposed("w_shift.A"),
    "attn.w_proj.linear.lora.2.weight": Transposed("w_shift.B"),
    "attn.w_proj.linear.lora.2.bias": "w",
    "attn.bonus": "u",
    **{f"attn.{j}_proj.linear": f"W_{j}" for j in "rkvg"},
    "attn.g_norm": "norm",
    "attn.o_proj": "W_o",
    ("ffn.key.mu", "ffn.receptance.mu"): Rows("channel_mixing.mu", (-1,)),
    "ffn.key.linear": "channel_mixing.W_k",
    "ffn.value": "channel_mixing.W_v",
    "ffn.receptance.linear": "channel_mixing.W_r",
}


def rwkv6(config: Config) -> Description:
    """RWKV-6 "Finch": of flash-linear-attention, and RWKV/v6-Finch-1B6-HF to -14B-HF.

        x <- x + time_mixing(LayerNorm(x))
        x <- x + sigmoid(W_r lerp_r) * W_v relu(W_k lerp_k)^2          of LayerNorm(x)
        S_t = Diag(w_t) S_{t-1} + k_t v_t^T,   o_t = (S_{t-1} + Diag(u) k_t v_t^T)^T r_t

    arXiv:2404.05892. The embedding is normed. The releases for transformers, RWKV/v6-Finch-*-HF,
    have the same model_type, and layer_norm_epsilon in place of norm_eps: both are read.
    """
    if "layer_norm_epsilon" in config.fields:
        return finch(config)
    features, heads = config.size("hidden_size"), config.size("num_heads", 4)
    eps = config("norm_eps", 1e-5)
    layer = partial(
        RWKV6,
        features,
        block=True,
        heads=heads,
        key_size=whole(config, "expand_k", config("expand_k", 0.5) * features / heads),
        value_size=whole(config, "expand_v", config("expand_v", 1.0) * features / heads),
        ranks=(config.size("proj_low_rank_dim", 32), config.size("gate_low_rank_dim", 64)),
        inner=inner_size(config, 3.5),
        norm_eps=eps,
        head_eps=eps,
    )
    branches = [Branch(layer, NAMES_6, f"model.layers.{i}") for i in range(config.depth())]
    return Description(branches=tuple(branches), **shell(config, features))
