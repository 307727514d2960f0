"""Inkling 2: Inkling with attention over depth, gates, sinks, and vectors of bounded length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry
from seqjax.hf.config import LARGEST, RUNNING, UNREAD, Config
from seqjax.hf.decoder import Branch, Description, Names
from seqjax.hf.depth import Closed, DepthConnection, Opened
from seqjax.hf.inkling import DistanceAttention, LogScale, ResidualConv
from seqjax.hf.tensors import Halves, Shaped, Transposed
from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import token_shift
from seqjax.nn.experts import MoE
from seqjax.nn.linear import per_head, wide
from seqjax.nn.norms import Norm


class Clip(nnx.Module):
    """z min(1, limit / (|z| + 1e-6)), z = u, or scale u with a scale that is learned."""

    def __init__(self, limit: float, *scaled: int):
        self.limit, self.scale = limit, Precise(jnp.ones(scaled)) if scaled else None

    def __call__(self, u: Array) -> Array:
        z = wide(u) if self.scale is None else wide(u) * self.scale[...][None]
        square = jnp.sum(z * z, axis=-1, keepdims=True)
        # where nothing is cut off the length is not looked at: its derivative at zero is infinite
        size = jnp.sqrt(jnp.maximum(square, (self.limit / 2) ** 2))
        return (z * jnp.minimum(1, self.limit / (size + 1e-6))).astype(u.dtype)


class DynamicConv(Layer):
    """y_t = scale (z_t + sum_n (w_n + [U s_t]_n) z_{t-n}) of x = [z, s]: a short convolution beside
    the identity, whose taps are in part made by the step.

    w [width, channels]; U s [heads, width] are taps of all channels of a head (of 1901.10430, where
    they are normalised). The state is the last width - 1 z.
    """

    def __init__(
        self,
        channels: int,
        inputs: int,
        width: int,
        *,
        heads: int,
        scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features, self.out_features = channels + inputs, channels
        self.shared, self.scale = per_head("channels", channels, heads), scale
        draw = nnx.initializers.normal(width**-0.5)
        self.w = nnx.Param(draw(rngs.params(), (width, channels), jnp.float32))
        self.U = nnx.Linear(inputs, heads * width, use_bias=False, rngs=rngs)

    def initial(self):
        width, channels = self.w.shape
        return jnp.zeros((width - 1, channels))

    def run(self, x, h, flow):
        z, s = jnp.split(x, (self.out_features,), axis=1)
        own = self.U(s).reshape(len(x), -1, len(self.w))
        y, past, window = z, z, h.now
        for n in range(len(self.w)):
            if n:  # the window of the furthest tap has all the others need
                past, window = token_shift(z, Carry(h.now[-n:], h.start[-n:]), flow=flow.of())
            taps = self.w[n][None] + jnp.repeat(own[:, :, n], self.shared, axis=1)
            y = y + taps * past
        return self.scale * y, window


class ClippedAttention(DistanceAttention):
    """`DistanceAttention` with vectors that are cut off by their length, a sink and a gate.

        A_ts^h = tau_t (K^-1/2 q_t^h . k_s^g + p_t^h . r_{t-s})
        q = clip(a W_q x), k = clip(c_k(W_k x)), p = clip(b W_p x), v = c_v(W_v x) / rms
        y = W_o (sigmoid(W_gate x) o), the sink W_sink x

    a, b: by head and channel. `dynamic`: the taps of c_k and c_v are in part made by the step.
    """

    def __init__(
        self,
        features: int,
        *,
        limit: float,
        limit_p: float,
        dynamic: bool,
        apart: bool,
        norm_eps: float,
        rngs: nnx.Rngs,
        **rest,
    ):
        super().__init__(features, norm_eps=norm_eps, rngs=rngs, **rest)
        heads, groups, K, width = self.heads, self.kv_heads, self.K, rest["conv"]
        self.features, self.apart, self.dynamic = (3 if apart else 1) * features, apart, dynamic
        self.scale = K**-0.5
        self.W_sink, self.W_gate = (
            nnx.Linear(features, n, use_bias=False, rngs=rngs) for n in (heads, heads * K)
        )
        self.q_norm, self.k_norm = Clip(limit, heads, K), Clip(limit)
        self.p_norm, self.v_norm = (
            Clip(limit_p, heads, rest["size"]),
            Norm(weight=False, eps=norm_eps),
        )
        taps = 2 * width if dynamic else width
        kind = partial(DynamicConv, groups * K, features, width, heads=groups)
        kind = kind if dynamic else partial(ResidualConv, groups * K, width)
        self.conv_k, self.conv_v = (kind(scale=(taps + 1) ** -0.5, rngs=rngs) for _ in range(2))

    def convolved(self, W, conv, x, h, flow):
        z = W(x)
        return conv.run(jnp.concatenate([z, x], axis=1) if self.dynamic else z, h, flow)


@dataclass(frozen=True)
class Capped:
    """c tanh(z / c); with `gate` times sigmoid(z)."""

    c: float
    gate: bool = False

    def __call__(self, z: Array) -> Array:
        y = self.c * jnp.tanh(z / self.c)
        return y * jax.nn.sigmoid(z) if self.gate else y


ATTENTION: Names = {
    "wq_du": "W_q",
    "wk_dv": "W_k",
    "wv_dv": "W_v",
    "wo_ud": "W_o",
    "wr_du": "W_p",
    "rel_logits_proj.proj": "r",
    "q_l2_clip.scale": "q_norm.scale",
    "rel_l2_clip.scale": "p_norm.scale",
    "attn_sink_proj": "W_sink",
    "gate_attn": "W_gate",
}
CONVS: dict[bool, Names] = {  # of keys and values; True: taps that are made by the step
    False: {f"{c}_sconv": f"conv_{c}.conv" for c in "kv"},
    True: {
        **{f"{c}_sconv.static_w": f"conv_{c}.w" for c in "kv"},
        **{f"{c}_sconv.weight_proj": Transposed(f"conv_{c}.U.kernel") for c in "kv"},
    },
}
EXPERTS: Names = {
    "gate": "W_r",
    "gate.bias": "choice_bias",
    "experts.w13_weight": Halves("W_1", "W_2", True),
    "experts.w2_weight": Transposed("W_3"),
}
TOWER = "image_token_id vision_config"
KINDS = {"hybrid": False, "hybrid_sliding": True}  # whether attention sees a window
AT = "model.llm"


def attention(config: Config, near: bool, eps: float, *, apart: bool) -> Callable[..., Layer]:
    """near: it sees a window; apart: its keys and values have inputs of their own."""
    own = "swa_" if near else ""
    window = config.size(config.named("sliding_window_size", "sliding_window"), 1024, most=LARGEST)
    floor, alpha = config.positive("log_scaling_n_floor"), config("log_scaling_alpha", 0.1)
    return partial(
        ClippedAttention,
        config.size("hidden_size"),
        heads=config.size(f"{own}num_attention_heads"),
        kv_heads=config.size(f"{own}num_key_value_heads", 8),
        head_size=config.size(f"{own}head_dim", 128),
        window=min(window, config.context) if near else config.context,
        conv=config.size(config.named("conv_kernel_size", "sconv_kernel_size"), 4),
        size=config.size("d_rel", 16),
        extent=window if near else config.size("rel_extent", 1024),
        log_scale=None if near else LogScale(floor, alpha),
        limit=config.positive("qk_l2_clip_threshold", 22.627416997969522),
        limit_p=config.positive("rel_l2_clip_threshold", 8.0),
        dynamic=not near,
        apart=apart,
        norm_eps=eps,
    )


def experts(config: Config) -> Callable[..., MoE]:
    config.only("scoring_func", "the scores of experts", "sigmoid")
    return partial(
        MoE,
        config.size("hidden_size"),
        config.size(config.named("moe_intermediate_size", "intermediate_size")),
        Capped(config.positive("mlp_gate_softcap", 4.0), gate=True),
        g=Capped(config.positive("mlp_up_softcap", 25.0)),
        experts=config.size(config.named("n_routed_experts", "num_local_experts")),
        top=config.size("num_experts_per_tok", 8),
        scores="sigmoid",
        floor=1e-20,
        scale=config(config.named("route_scale", "routed_scaling_factor"), 8.0),
        choice_bias=True,
    )


def around(i: int, near: bool) -> tuple[Names, Names]:
    """The tensors of the two connections of block i, and of the convolutions after its layers."""
    at, norms = f"{AT}.layers.{i}", ("attn",) if near else ("q_input", "k_input", "v_input")
    one: dict[Any, Any] = {
        f"{at}.{norm}_norm": f"connection.norms.{q}" for q, norm in enumerate(norms)
    }
    shape = (-1,) if near else (3, -1)
    if i:
        one[f"{AT}.attn_res.attn_queries.{i - 1}"] = Shaped("connection.depth.w", shape)
    two: Names = {
        f"{at}.mlp_norm": "connection.norms.0",
        f"{AT}.attn_res.mlp_queries.{i}": Shaped("connection.depth.w", (-1,)),
    }
    convs = ({f"{at}.{name}_sconv": "post.conv"} for name in ("attn", "mlp"))
    first, second = ({**names, **conv} for names, conv in zip((one, two), convs))
    return first, second


def steps(config: Config, eps: float, size: int, loop: range, **heard: int) -> list[Branch]:
    """The two branches of each block, of which `size` in a row are summed.

    heard: options of the connections of the blocks in the loop.
    """
    features, depth = config.size("hidden_size"), config.depth()
    width = config.size(config.named("conv_kernel_size", "sconv_kernel_size"), 4)

    def words():
        return ["hybrid_sliding" if (i + 1) % 6 else "hybrid" for i in range(depth)]

    conv = partial(ResidualConv, features, width, scale=(width + 1) ** -0.5)
    connect, feed = partial(DepthConnection, features, eps=eps), experts(config)
    branches = []
    for i, near in enumerate(config.each("layer_types", depth, KINDS, words)):
        apart = not near or i in loop
        mix = attention(config, near, eps, apart=apart)
        names = {**ATTENTION, **CONVS[not near]}
        begins, options = i % size == 0, heard if i in loop else {}
        first = partial(
            connect,
            over=-(-i // size),
            first=begins,
            attends=i > 0,
            queries=1 if near else 3,
            given=3 if apart else 1,
            **options,
        )
        second = partial(connect, over=i // size + 1, **options)
        parts = (mix, names, "attn", first), (feed, EXPERTS, "mlp", second)
        for (layer, own, below, connection), other in zip(parts, around(i, near)):
            at = f"{AT}.layers.{i}.{below}"
            branches.append(Branch(layer, own, at, connection=connection, then=conv, around=other))
    return branches


def text(config: Config, **fields: Any) -> Description:
    eps, size = config("rms_norm_eps", 1e-6), config.size("n_layers_per_attn_res_block", 6)
    return described(config, eps, size, steps(config, eps, size, range(0)), **fields)


def described(
    config: Config,
    eps: float,
    size: int,
    branches: Sequence[Branch],
    messages: int = 0,
    names: Names | None = None,
    **fields: Any,
) -> Description:
    """messages: how many sums the stream has beside those of the blocks."""
    features, blocks = config.size("hidden_size"), -(-config.depth() // size)
    config.ignore(UNREAD, "tie_word_embeddings hidden_act")
    config.ignore(RUNNING, "number_of_conv_states")
    rows = config.size("vocab_size", 201024)
    ends: Names = {
        f"{AT}.embed_norm": "embed.norm.norm",
        f"{AT}.attn_res.output_query": Shaped("norm.depth.w", (-1,)),
    }
    return Description(
        vocabulary=min(rows, config.size("unpadded_vocab_size", 200058)),
        rows=rows,
        features=features,
        branches=tuple(branches),
        norm=partial(Norm, eps=eps),
        embed=f"{AT}.embed",
        head=f"{AT}.unembed",
        last=f"{AT}.norm",
        names={**ends, **(names or {})},
        softcap=config.positive("final_logit_softcapping", 30.0),
        enter=partial(Opened, features, blocks + messages, eps=eps),
        leave=partial(Closed, features, blocks, eps=eps),
        context=config.context,
        **fields,
    )


def whole(config: Config, of: Callable[..., Description]) -> Description:
    """The text model of a config that has a tower for images beside it."""
    config.ignore("of what sees images, beside the text model", TOWER)
    config.ignore(UNREAD, "tie_word_embeddings")
    inner = config.inside("text_config")
    inner.only("model_type", "the text model", f"{config.kind}_text")
    return of(inner, beside=("model.visual.",))


def inkling2_text(config: Config) -> Description:
    """Inkling 2, of Thinking Machines: the text model alone, as transformers saves it.

    The equations are those of `inkling2`.
    """
    return text(config)


def inkling2(config: Config) -> Description:
    """Inkling 2 (thinkingmachines/Inkling-2-Small), the text model, as transformers 5.24 has it.

        x <- x + c(attention(rms(z_q), rms(z_k), rms(z_v))),   x <- x + c(experts(rms(z)))
        z = sum_n a_n u_n,  a = softmax_n(D^-1/2 w . u_n)      u: rms of x and of the sums before it
        c(y) = (y + conv(y)) / (width + 1)^1/2

    Attention over depth (arXiv:2603.15031): x is the sum of n_layers_per_attn_res_block blocks, and
    a new one begins after them. In blocks that see a window z_q, z_k and z_v are one. Queries, keys
    and scores by distance are cut off by their length, attention may look at nothing (a sink) and
    is gated; taps of convolutions of keys and values are in part made by the step where attention
    is full. The two factors of the experts' gated units are cut off smoothly. Of the tokens those
    beyond unpadded_vocab_size are none. What sees images (model.visual) is kept, not run.
    """
    return whole(config, text)
