"""MiniMax-Text-01: lightning attention beside softmax attention, experts in every block."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.hf.config import TRAINING, Config
from seqjax.hf.decoder import Branch, Description, Names
from seqjax.hf.delta import interleaved
from seqjax.hf.parts import ATTENTION, KINDS, attention, describe, expert_names, experts
from seqjax.hf.tensors import Constant, Shaped, Split
from seqjax.nn.base import Frozen, Layer
from seqjax.nn.linear import merge_heads, split_heads
from seqjax.nn.norms import Norm
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.positions import alibi

EXPERTS = {"gate": "W_r", **expert_names("w1", "w3", "w2")}


class LightningAttention(Layer):
    """W_o (sigmoid(W_g x) * RMSNorm(S_t^T q_t)), S_t = exp(-slope) S_{t-1} + k_t v_t^T.

    q, k, v = silu(W x) (arXiv:2401.04658; the norm over all heads, arXiv:2501.08313 sec. 2.2).
    """

    ops = ("linear_attention",)

    def __init__(
        self,
        features: int,
        *,
        heads: int,
        head_size: int,
        slope: tuple[float, ...] | None = None,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.K = heads, head_size
        linear = partial(nnx.Linear, use_bias=False, rngs=rngs)
        inner = heads * head_size
        self.W_q, self.W_k, self.W_v, self.W_g = (linear(features, inner) for _ in range(4))
        self.W_o, self.norm = linear(inner, features), Norm(inner, eps=1e-6)
        # read from the checkpoint where it is not given
        self.slope = Frozen(jnp.zeros(heads)) if slope is None else slope

    def initial(self):
        return jnp.zeros((self.heads, self.K, self.K))

    def run(self, x, h, flow):
        q, k, v = (
            split_heads(jax.nn.silu(W(x)), self.heads) for W in (self.W_q, self.W_k, self.W_v)
        )
        slope = self.slope[...] if isinstance(self.slope, nnx.Variable) else self.slope
        log_a = -jnp.asarray(slope, q.dtype)
        y, h = linear_attention(q, k, v, log_a, h, flow=flow)
        return self.W_o(jax.nn.sigmoid(self.W_g(x)) * self.norm(merge_heads(y))), h


def decays(heads: int, block: int, i: int, depth: int) -> dict[str, np.ndarray]:
    """The tables exp(-slope * distance) that the checkpoint holds for blocks of `block` steps."""
    slope = 2.0 ** (-8 / heads * np.arange(1, heads + 1)) * (1 - i / (depth - 1 + 1e-5) + 1e-5)
    slope, n = slope[:, None, None], np.arange(1, block + 1)[:, None]
    distance = n - n.T
    within = np.exp(np.where(distance >= 0, -slope * distance, -np.inf))
    return {
        "query_decay": np.exp(-slope * n),
        "key_decay": np.exp(-slope * (block - n)),
        "diagonal_decay": within[None],
    }


def blocks(config: Config, linear, lightning, size: int, factor, from_norm: bool) -> Description:
    """What both formats share. linear: which blocks have lightning attention, that of block i is
    lightning(i); factor(name): alpha or beta of "linear", "full" or "mlp"."""
    # MiniMax-Text-01 gives rotary_dim, and its own code turns that many channels of every head;
    # transformers reads the field for MiniMax-M2 alone (its issue 48241)
    turned = config.size("rotary_dim", size, most=size) / size
    attend = attention(config, head_size=size, **config.rope(turned, 1_000_000.0))
    some = experts(
        config,
        config.size("intermediate_size"),
        experts=config.size("num_local_experts", 8),
        top=config.size("num_experts_per_tok", 2),
    )
    branches = []
    for i, recurs in enumerate(linear):
        at, which = f"model.layers.{i}", "linear" if recurs else "full"
        mix, names = lightning(i) if recurs else (attend, ATTENTION)
        parts = (
            (which, mix, names, "self_attn", "input_layernorm"),
            ("mlp", some, EXPERTS, "block_sparse_moe", "post_attention_layernorm"),
        )
        branches += [
            Branch(
                layer,
                named,
                f"{at}.{part}",
                norm=f"{at}.{norm}",
                from_norm=from_norm,
                alpha=factor(f"{kind}_alpha"),
                beta=factor(f"{kind}_beta"),
            )
            for kind, layer, named, part, norm in parts
        ]
    return describe(config, branches, eps=config("rms_norm_eps", 1e-5))


def common(config: Config) -> tuple[int, int, int]:
    """Heads, their size and the number of blocks, once the fields of both formats are checked."""
    config.ignore(TRAINING, "router_jitter_noise")
    config.ignore("there is no shared expert", "shared_moe_mode")
    config.only("sliding_window", "attention sees a window of the past", None)
    config.only("hidden_act", "the activation around the recurrence", "silu")
    config.only("shared_intermediate_size", "a shared expert stands beside the others", 0)
    heads = config.size("num_attention_heads")
    return heads, config.size("head_dim", config.size("hidden_size") // heads), config.depth()


def names_of(heads: int, size: int) -> Names:
    return {
        "qkv_proj": Split("W_q", ("W_k", "W_v"), interleaved(heads, size, size, size)),
        "output_gate": "W_g",
        "norm": "norm",
        "out_proj": "W_o",
    }


def minimax(config: Config) -> Description:
    """MiniMax-Text-01 (MiniMaxAI/MiniMax-Text-01-hf), arXiv:2501.08313.

        x <- a n + b mix(n)       n = rms(x); mix = lightning attention in seven
                                  blocks of eight, or attention
        x <- a n + b experts(n)   n = rms(x)

    a and b are the alpha and beta factors of the config, per kind of layer. rotary_dim is how many
    channels of a head have positions, as in the code that the weights were trained with;
    transformers 5.24 does not read it.
    """
    config.only("postnorm", "the normed stream is what a branch is added to", True)
    heads, size, depth = common(config)
    block = config.size("block_size", 256)
    mix = partial(LightningAttention, config.size("hidden_size"), heads=heads, head_size=size)
    names = {**names_of(heads, size), "slope_rate": Shaped("slope", (heads, 1, 1))}

    def lightning(i):
        return mix, names | {n: Constant(v) for n, v in decays(heads, block, i, depth).items()}

    def factor(name):
        kind, letter = name.split("_")
        return config(f"{kind}{'' if kind == 'mlp' else '_attn'}_{letter}_factor", 1.0)

    def words():
        return ["full_attention" if (i + 1) % 2 else "linear_attention" for i in range(depth)]

    linear = config.each("layer_types", depth, KINDS, words)
    for which in ("linear", "full"):
        unused = f"{which}_attn_alpha_factor {which}_attn_beta_factor"
        config.ignore("no block is of this kind", unused)  # where they are not read
    return blocks(config, linear, lightning, size, factor, from_norm=True)


def minimax_text_01(config: Config) -> Description:
    """MiniMax-Text-01 and M1 (MiniMaxAI/MiniMax-Text-01, -M1-40k, -M1-80k), arXiv:2501.08313
    and 2506.13585, as released with code of their own.

        x <- a r + b mix(n)       n = rms(x), r = n, or x without postnorm
        x <- a r + b experts(n)   n = rms(x)

    The model of `minimax`: attn_type_list names the blocks (1: attention), the slopes of lightning
    attention are no tensors but follow from the config.
    """
    heads, size, depth = common(config)

    def lightning(i):
        slopes = -alibi(heads, 2)[:, 1] * (1 - i / (depth - 1) + 1e-5)
        options = dict(heads=heads, head_size=size, slope=tuple(slopes.tolist()))
        mix = partial(LightningAttention, config.size("hidden_size"), **options)
        return mix, names_of(heads, size)

    def factor(name):
        kind, letter = name.split("_")
        return config(f"layernorm_{kind}{'' if kind == 'mlp' else '_attention'}_{letter}", 1.0)

    linear = config.each("attn_type_list", depth, {"0": True, "1": False}, lambda: [])
    for which in ("linear", "full"):
        unused = f"layernorm_{which}_attention_alpha layernorm_{which}_attention_beta"
        config.ignore("no block is of this kind", unused)  # where they are not read
    return blocks(config, linear, lightning, size, factor, from_norm=config("postnorm", False))
