"""MiniMax-Text-01: lightning attention beside softmax attention, experts in every block."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.hf.config import TRAINING, Config
from seqjax.hf.decoder import Branch, Description
from seqjax.hf.delta import interleaved
from seqjax.hf.parts import ATTENTION, KINDS, attention, describe, expert_names, experts
from seqjax.hf.tensors import Constant, Shaped, Split
from seqjax.nn.base import Frozen, Layer
from seqjax.nn.linear import merge_heads, split_heads
from seqjax.nn.norms import Norm
from seqjax.ops.linear_attention import linear_attention

EXPERTS = {"gate": "W_r", **expert_names("w1", "w3", "w2")}


class LightningAttention(Layer):
    """W_o (sigmoid(W_g x) * RMSNorm(S_t^T q_t)), S_t = exp(-slope) S_{t-1} + k_t v_t^T.

    q, k, v = silu(W x) (arXiv:2401.04658; the norm over all heads, arXiv:2501.08313 sec. 2.2).
    """

    ops = ("linear_attention",)

    def __init__(self, features: int, *, heads: int, head_size: int, rngs: nnx.Rngs):
        self.features = self.out_features = features
        self.heads, self.K = heads, head_size
        linear = partial(nnx.Linear, use_bias=False, rngs=rngs)
        inner = heads * head_size
        self.W_q, self.W_k, self.W_v, self.W_g = (linear(features, inner) for _ in range(4))
        self.W_o, self.norm = linear(inner, features), Norm(inner, eps=1e-6)
        self.slope = Frozen(jnp.zeros(heads))  # read from the checkpoint

    def initial(self):
        return jnp.zeros((self.heads, self.K, self.K))

    def run(self, x, h, flow):
        q, k, v = (
            split_heads(jax.nn.silu(W(x)), self.heads) for W in (self.W_q, self.W_k, self.W_v)
        )
        log_a = -self.slope[...].astype(q.dtype)
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


def minimax(config: Config) -> Description:
    """MiniMax-Text-01 (MiniMaxAI/MiniMax-Text-01-hf), arXiv:2501.08313.

        x <- a n + b mix(n)       n = rms(x); mix = lightning attention in seven
                                  blocks of eight, or attention
        x <- a n + b experts(n)   n = rms(x)

    a and b are the alpha and beta factors of the config, per kind of layer. rotary_dim is how many
    channels of a head have positions, as in the code that the weights were trained with;
    transformers 5.24 does not read it.
    """
    heads, depth = config.size("num_attention_heads"), config.depth()
    size = config.size("head_dim", config.size("hidden_size") // heads)
    block = config.size("block_size", 256)
    config.ignore(TRAINING, "router_jitter_noise")
    config.ignore("there is no shared expert", "shared_moe_mode")
    config.only("sliding_window", "attention sees a window of the past", None)
    config.only("hidden_act", "the activation around the recurrence", "silu")
    config.only("postnorm", "the normed stream is what a branch is added to", True)
    config.only("shared_intermediate_size", "a shared expert stands beside the others", 0)
    lightning = partial(LightningAttention, config.size("hidden_size"), heads=heads, head_size=size)
    lit = {
        "qkv_proj": Split("W_q", ("W_k", "W_v"), interleaved(heads, size, size, size)),
        "output_gate": "W_g",
        "norm": "norm",
        "out_proj": "W_o",
        "slope_rate": Shaped("slope", (heads, 1, 1)),
    }
    # MiniMax-Text-01 gives rotary_dim, and its own code turns that many channels of every head;
    # transformers reads the field for MiniMax-M2 alone (its issue 48241)
    turned = config.size("rotary_dim", size, most=size) / size
    attend = attention(config, **config.rope(turned, 1_000_000.0))
    some = experts(
        config,
        config.size("intermediate_size"),
        experts=config.size("num_local_experts", 8),
        top=config.size("num_experts_per_tok", 2),
    )

    def words():
        return ["full_attention" if (i + 1) % 2 else "linear_attention" for i in range(depth)]

    branches = []
    for i, linear in enumerate(config.each("layer_types", depth, KINDS, words)):
        at = f"model.layers.{i}"
        tables = decays(heads, block, i, depth) if linear else {}
        names = lit | {n: Constant(v) for n, v in tables.items()} if linear else ATTENTION
        which = "linear" if linear else "full"
        first = Branch(
            lightning if linear else attend,
            names,
            f"{at}.self_attn",
            norm=f"{at}.input_layernorm",
            from_norm=True,
            alpha=config(f"{which}_attn_alpha_factor", 1.0),
            beta=config(f"{which}_attn_beta_factor", 1.0),
        )
        second = Branch(
            some,
            EXPERTS,
            f"{at}.block_sparse_moe",
            norm=f"{at}.post_attention_layernorm",
            from_norm=True,
            alpha=config("mlp_alpha_factor", 1.0),
            beta=config("mlp_beta_factor", 1.0),
        )
        branches += [first, second]
    for which in ("linear", "full"):
        names = f"{which}_attn_alpha_factor {which}_attn_beta_factor"
        config.ignore("no block is of this kind", names)  # where they were not read
    return describe(config, branches, eps=config("rms_norm_eps", 1e-5))
