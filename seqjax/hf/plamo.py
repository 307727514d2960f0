"""PLaMo 2: Mamba-2 with normed steps, B and C, beside attention in a window."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.hf.config import RUNNING, UNREAD, Config
from seqjax.hf.decoder import Branch, Description, Names
from seqjax.hf.delta import interleaved
from seqjax.hf.parts import attention, describe, feed
from seqjax.hf.tensors import Split
from seqjax.layers.ssm.mamba2 import Mamba2State
from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import ShortConv
from seqjax.nn.linear import merge_heads, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.linear_attention import linear_attention


class NormedMamba2(Layer):
    """Mamba-2 whose steps, B and C are made of what the convolution gives, and normed.

        [z, u] = W_in x,  u <- SiLU(conv(u));   [B, C, d] = W_u u, each <- rms
        dt = softplus(W_dt d + dt_bias);   y = W_out ((C^T S + D u) * SiLU(z))

    S_t = exp(-exp(A_log) dt_t) S_{t-1} + dt_t B_t u_t^T, A_log, dt and D one per head.
    """

    ops = ("linear_attention",)

    def __init__(
        self,
        features: int,
        *,
        heads: int,
        head_size: int,
        state: int,
        rank: int,
        conv: int,
        norm_eps: float,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.P, self.N, inner = heads, head_size, state, heads * head_size
        linear = partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.W_z, self.W_in = linear(features, inner), linear(features, inner)
        self.conv = ShortConv(inner, conv, bias=False, rngs=rngs)
        self.W_u, self.W_dt = linear(inner, 2 * state + rank), linear(rank, heads)
        self.B_norm, self.C_norm, self.dt_norm = (
            Norm(n, eps=norm_eps) for n in (state, state, rank)
        )
        self.A_log, self.dt_bias = Precise(jnp.zeros(heads)), Precise(jnp.zeros(heads))
        self.D = Precise(jnp.ones(heads))
        self.W_out = linear(inner, features)

    def initial(self):
        return Mamba2State(self.conv.initial(), jnp.zeros((self.heads, self.N, self.P)))

    def run(self, x, h, flow):
        u, window = self.conv(self.W_in(x), h.window, flow)
        u = jax.nn.silu(u)
        B, C, d = jnp.split(self.W_u(u), (self.N, 2 * self.N), axis=1)
        delta = wide(self.W_dt(self.dt_norm(d))) + self.dt_bias[...][None]
        dt, u = jax.nn.softplus(delta), wide(split_heads(u, self.heads))
        y, S = linear_attention(
            self.C_norm(C)[:, None],
            self.B_norm(B)[:, None],
            dt[:, :, None] * u,
            -jnp.exp(self.A_log[...])[None] * dt,
            h.S,
            flow=flow,
        )
        y = merge_heads(y + self.D[...][None, :, None] * u) * jax.nn.silu(wide(self.W_z(x)))
        return self.W_out(y.astype(x.dtype)), Mamba2State(window, S)


ATTENTION: Names = {
    "qkv_proj": Split("W_q", ("W_k", "W_v")),
    "q_weight": "q_norm.weight",
    "k_weight": "k_norm.weight",
    "o_proj": "W_o",
}
FEED: Names = {"gate_up_proj": Split("W_1", ("W_2",)), "down_proj": "W_3"}


def recurs(config: Config, depth: int) -> list[bool]:
    """Which blocks have the recurrence."""
    every = config.size("mamba_step", 2, least=2)
    if not config("mamba_enabled", True):
        return [False] * depth
    if depth <= every // 2:
        return [i < depth - 1 for i in range(depth)]
    return [i % every != every // 2 for i in range(depth)]


def plamo2(config: Config) -> Description:
    """PLaMo 2 (pfnet/plamo-2-1b, -2-8b), released with code of its own.

        x <- x + norm(mix(rms(x)))   mix = mamba2 in every other block (mamba_step), or attention
        x <- x + norm(glu(rms(x)))   norms of what is added store weight - 1/5 and - 5^-3/2, the
                                     others weight - 1

    Mamba-2 (arXiv:2405.21060) makes steps, B and C of what its convolution gives and norms them.
    Attention norms the queries and keys of each head, with weights of its own, and sees
    attention_window_size steps and one more, in the blocks of full_attention_idx all. Images
    (image_token_id) are refused.
    """
    depth, eps = config.depth(), config("rms_norm_eps", 1e-6)
    config.ignore(RUNNING, "mamba_chunk_size fp8_accum_dtype")
    config.ignore(UNREAD, "sliding_window")
    config.only("linear_type", "how numbers are rounded", "normal")
    config.only("image_token_id", "the model sees images", None)
    config.only("image_feature_size", "the model sees images", None)
    config.ignore("there are no images", "image_proj_type")
    config.only("eval_attention_n_bit", "how numbers are rounded", None)
    config.only("eval_mlp_n_bit", "how numbers are rounded", None)
    features, size = config.size("hidden_size"), config.size("hidden_size_per_head", 128)
    heads = config.size("mamba_num_heads", 64)
    mix = partial(
        NormedMamba2,
        features,
        heads=heads,
        head_size=size,
        state=config.size("mamba_d_state", 64),
        rank=max(64, features // 16),
        conv=config.size("mamba_d_conv", 4),
        norm_eps=eps,
    )
    mixed: Names = {
        "in_proj": Split("W_z", ("W_in",), interleaved(heads, size, size)),
        "conv1d": "conv",
        "bcdt_proj": "W_u",
        "dt_proj": "W_dt",
        "dt_bias": "dt_bias",
        "A_log": "A_log",
        "D": "D",
        "dt_norm_weight": "dt_norm.weight",
        "B_norm_weight": "B_norm.weight",
        "C_norm_weight": "C_norm.weight",
        "out_proj": "W_out",
    }
    wide_base = config.positive("rope_theta", 10_000.0)
    bases = {True: wide_base, False: config.positive("rope_local_theta", wide_base)}
    near = min(config.size("attention_window_size", 2048) + 1, config.context)
    everywhere = config("full_attention_idx", [])
    mlp, branches = feed(config), []
    for i, recurrent in enumerate(recurs(config, depth)):
        at, full = f"model.layers.layers.{i}", i in everywhere
        attend = attention(
            config,
            head_size=size,
            bias=False,
            qk_norm="each",
            window=config.context if full else near,
            base=bases[full],
        )
        first, names = (mix, mixed) if recurrent else (attend, ATTENTION)
        parts = ("mixer", 0.2, first, names), ("mlp", 5**-1.5, mlp, FEED)
        branches += [
            Branch(
                layer,
                named,
                f"{at}.{part}",
                norm=f"{at}.pre_{part}_norm",
                post=f"{at}.post_{part}_norm",
                post_offset=offset,
            )
            for part, offset, layer, named in parts
        ]
    return describe(config, branches, eps=eps, tied=True, offset=1.0, context=config.context)
