"""Inkling: attention with scores by distance that each query makes, and short convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.hf.config import LARGEST, RUNNING, UNREAD, Config
from seqjax.hf.decoder import Branch, Description, Names, under
from seqjax.hf.parts import ATTENTION, FEED, PACKED_EXPERTS
from seqjax.hf.tensors import Halves, Split, Transposed
from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import ShortConv
from seqjax.nn.experts import MoE
from seqjax.nn.linear import GLU, merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.look_back import Cache, empty
from seqjax.ops.positions import places
from seqjax.ops.softmax_attention import softmax_attention


class ResidualConv(Layer):
    """y = scale (x + conv(x)), a short convolution beside the identity."""

    def __init__(self, features: int, width: int, *, scale: float = 1.0, rngs: nnx.Rngs):
        self.features = self.out_features = features
        self.conv, self.scale = ShortConv(features, width, bias=False, rngs=rngs), scale

    def initial(self):
        return self.conv.initial()

    def run(self, x, h, flow):
        y, h = self.conv(x, h, flow)
        return self.scale * (x + y), h


class Gained(nnx.Module):
    """gain f(x): one number that is learned, and a module without a state."""

    def __init__(self, f: Callable[..., nnx.Module], *, rngs: nnx.Rngs):
        self.f, self.gain = f(rngs=rngs), Precise(jnp.ones(1))

    def __call__(self, x: Array) -> Array:
        return (self.gain[...][0] * self.f(x)).astype(x.dtype)  # pyright: ignore[reportCallIssue]


@dataclass(frozen=True)
class LogScale:
    """tau_t = 1 + alpha log(max(1, (t + 1) / floor)) of the positions t = 0, 1, ..."""

    floor: float
    alpha: float

    def __call__(self, t: Array, dtype: Any) -> Array:
        past = (t + 1).astype(dtype) / self.floor
        return 1 + self.alpha * jnp.log(jnp.maximum(past, 1))


class DistanceState(NamedTuple):
    cache: Cache
    k: Array  # of the convolution of the keys
    v: Array  # and of that of the values
    place: Any  # of the next step, where scores are scaled by position


class DistanceAttention(Layer):
    """Softmax attention over the last `window` steps, with scores by distance.

        A_ts^h = tau_t (scale q_t^h . k_s^g + p_t^h . r_{t-s})       p = W_p x, scale = 1 / K
        q = rms(W_q x),  k = rms(c_k(W_k x)),  v = c_v(W_v x),  y = W_o [softmax_s(A_ts^h) v_s^g]_h

    c_k, c_v: short convolutions beside the identity. r [size, extent] is zero for larger distances;
    tau as in `LogScale`, or 1. heads / kv_heads queries in a row share a key (arXiv:2305.13245).
    A subclass may have other norms, also of p and v; `apart`: x has inputs of its own for q and p,
    k, and v, side by side; a sink W_sink x (`softmax_attention`) and sigmoid(W_gate x) times the
    result before W_o.
    """

    ops = ("softmax_attention",)
    learned = ""  # a cache begins empty
    apart = False
    p_norm = v_norm = W_sink = W_gate = None

    def __init__(
        self,
        features: int,
        *,
        heads: int,
        kv_heads: int,
        head_size: int,
        window: int,
        conv: int,
        size: int,
        extent: int,
        log_scale: LogScale | None = None,
        norm_eps: float = 1e-6,
        rngs: nnx.Rngs,
    ):
        per_head("heads", heads, kv_heads)
        self.features = self.out_features = features
        self.heads, self.kv_heads, self.K, self.window = heads, kv_heads, head_size, window
        self.scale, self.log_scale = 1 / head_size, log_scale
        keys, values = heads * head_size, kv_heads * head_size

        def linear(n, m):
            return nnx.Linear(n, m, use_bias=False, rngs=rngs)

        self.W_q, self.W_k, self.W_v = (linear(features, n) for n in (keys, values, values))
        self.W_p, self.W_o = linear(features, heads * size), linear(keys, features)
        self.conv_k, self.conv_v = (ResidualConv(values, conv, rngs=rngs) for _ in range(2))
        self.q_norm, self.k_norm = (Norm(head_size, eps=norm_eps) for _ in range(2))
        init = nnx.initializers.normal(size**-0.5)
        self.r = nnx.Param(init(rngs.params(), (size, extent), jnp.float32))

    def initial(self):
        keys = jnp.zeros((self.window - 1, self.kv_heads, self.K))
        place = jnp.zeros((), jnp.int32) if self.log_scale else ()
        return DistanceState(
            empty((keys, keys)), self.conv_k.initial(), self.conv_v.initial(), place
        )

    def run(self, x, h, flow):
        x, x_k, x_v = jnp.split(x, 3, axis=1) if self.apart else (x, x, x)
        k, window_k = self.convolved(self.W_k, self.conv_k, x_k, h.k, flow)
        v, window_v = self.convolved(self.W_v, self.conv_v, x_v, h.v, flow)
        q = self.normed(self.W_q(x), self.heads, self.q_norm)
        p = self.normed(self.W_p(x), self.heads, self.p_norm)
        (q, p), place = self.scaled(q, p, h.place, flow)
        y, cache = softmax_attention(
            q,
            self.normed(k, self.kv_heads, self.k_norm),
            self.normed(v, self.kv_heads, self.v_norm),
            h.cache,
            p=p,
            r=self.by_distance(),
            sink=None if self.W_sink is None else self.W_sink(x),
            scale=self.scale,
            flow=flow,
        )
        y = merge_heads(y).astype(x.dtype)
        y = y if self.W_gate is None else y * jax.nn.sigmoid(self.W_gate(x))
        return self.W_o(y), DistanceState(cache, window_k, window_v, place)

    def convolved(self, W, conv, x, h, flow):
        return conv.run(W(x), h, flow)

    def normed(self, z, heads, norm):
        z = split_heads(z, heads)
        return z if norm is None else norm(z)

    def scaled(self, q, p, place, flow):
        """tau q and tau p, and the position of the next step."""
        if self.log_scale is None:
            return (q, p), ()
        t, after = places(place, len(q), flow=flow)
        tau = self.log_scale(t, wide(q).dtype)[:, None, None]
        return tuple((wide(z) * tau).astype(z.dtype) for z in (q, p)), after

    def by_distance(self):
        """r as the op takes it, which scales it: [window, heads, size]."""
        r = self.r[...].T[: self.window] / self.scale
        r = jnp.pad(r, ((0, self.window - len(r)), (0, 0)))
        return jnp.broadcast_to(r[:, None], (len(r), self.heads, r.shape[1]))


@dataclass(frozen=True)
class Written:
    """What the parts of a model and of its blocks are called in a checkpoint."""

    embed: str
    first: str  # the norm of the embedding
    head: str
    last: str
    blocks: str
    norms: tuple[str, str]
    conv: str  # how the name of a convolution ends
    attention: str
    attended: Names
    dense: Callable[[int], Names]  # of its width
    sparse: Names

    def convs(self, at: str) -> tuple[Names, Names]:
        """Of the convolutions after the two layers of a block."""
        one, two = ({f"{at}.{name}_sconv{self.conv}": "post.conv"} for name in ("attn", "mlp"))
        return one, two


SMALL: Names = {"q_norm": "q_norm", "k_norm": "k_norm", "rel_logits_proj.proj": "r"}
ROUTED: Names = {"gate.global_scale": "gain", "gate": "f.W_r"}
TRANSFORMERS = Written(
    embed="model.embed_tokens",
    first="model.embed_tokens.embed_norm",
    head="lm_head",
    last="model.norm",
    blocks="model.layers",
    norms=("input_layernorm", "post_attention_layernorm"),
    conv=".conv1d",
    attention="self_attn",
    attended={
        **ATTENTION,
        **SMALL,
        "r_proj": "W_p",
        "k_sconv.conv1d": "conv_k.conv",
        "v_sconv.conv1d": "conv_v.conv",
    },
    dense=lambda inner: {"global_scale": "gain", **{n: f"f.{path}" for n, path in FEED.items()}},
    sparse={
        **ROUTED,
        **{name: under("f", form) for name, form in PACKED_EXPERTS.items()},
        "gate.e_score_correction_bias": "f.choice_bias",
        "shared_experts.gate_proj": Transposed("f.always.W_1"),
        "shared_experts.up_proj": Transposed("f.always.W_2"),
        "shared_experts.down_proj": Transposed("f.always.W_3"),
    },
)
RELEASE = Written(
    embed="model.llm.embed",
    first="model.llm.embed_norm",
    head="model.llm.unembed",
    last="model.llm.norm",
    blocks="model.llm.layers",
    norms=("attn_norm", "mlp_norm"),
    conv="",
    attention="attn",
    attended={
        **SMALL,
        "wq_du": "W_q",
        "wk_dv": "W_k",
        "wv_dv": "W_v",
        "wo_ud": "W_o",
        "wr_du": "W_p",
        "k_sconv": "conv_k.conv",
        "v_sconv": "conv_v.conv",
    },
    dense=lambda inner: {
        "global_scale": "gain",
        "w13_dn": Split("f.W_1", ("f.W_2",), (*range(0, 2 * inner, 2), *range(1, 2 * inner, 2))),
        "w2_md": "f.W_3",
    },
    sparse={
        **ROUTED,
        "gate.bias": "f.choice_bias",
        "experts.w13_weight": Halves("f.W_1", "f.W_2", True),
        "experts.w2_weight": Transposed("f.W_3"),
        "shared_experts.shared_w13_weight": Halves("f.always.W_1", "f.always.W_2", True),
        "shared_experts.shared_w2_weight": Transposed("f.always.W_3"),
    },
)
KINDS = {"hybrid": "", "hybrid_sliding": "swa_"}  # and how the fields of its attention begin
MTP = "num_mtp_layers chain_hidden_post_norm mtp_hidden_states_first mtp_local_layer_ids"
TOWERS = """
    audio_bos_token_id audio_config audio_token_id image_bos_token_id image_token_id vision_config
"""
# What the release writes down and transformers does not read: as it computes.
ALWAYS = {
    "q_bias": ("queries have a bias", False),
    "o_bias": ("the output of attention has a bias", False),
    "use_embed_norm": ("the embedding is normed", True),
    "use_sconv": ("there are short convolutions", True),
    "shared_expert_sink": ("the router weighs the experts of all tokens too", True),
    "gate_activation": ("the scores of experts", "sigmoid"),
    "use_gate_bias": ("the choice of experts has a bias", True),
    "norm_after_topk": ("the weights of experts add up to one", True),
    "use_global_scale": ("the second branch has a gain", True),
    "final_logit_softcapping": ("logits are capped", None),
}


def attention(config: Config, kind: str, eps: float) -> Callable[..., DistanceAttention]:
    """That of the blocks of this kind."""
    own, floor = KINDS[kind], config.positive("log_scaling_n_floor", None)
    near = config.size(config.named("sliding_window_size", "sliding_window"), 512, most=LARGEST)
    alpha = config("log_scaling_alpha", 0.1)
    return partial(
        DistanceAttention,
        config.size("hidden_size", 6144),
        heads=config.size(f"{own}num_attention_heads", 64),
        kv_heads=config.size(f"{own}num_key_value_heads", 16 if own else 8),
        head_size=config.size(f"{own}head_dim", 128),
        window=min(near, config.context) if own else config.context,
        conv=config.size(config.named("conv_kernel_size", "sconv_kernel_size"), 4),
        size=config.size("d_rel", 16),
        extent=near if own else config.size("rel_extent", 1024),
        log_scale=None if own or floor is None else LogScale(floor, alpha),
        norm_eps=eps,
    )


def feeds(config: Config, names: Written) -> dict[str, tuple[Callable[..., Gained], Names]]:
    """The second layers of blocks and their tensors, by the words of mlp_layer_types."""
    features, f = config.size("hidden_size", 6144), config.activation("hidden_act")
    inner, dense = config.size("intermediate_size", 24576), "dense_intermediate_size"
    if config.fields.get(dense) is None:
        dense, routed = inner, config.size("moe_intermediate_size", 3072)
    else:
        config.ignore("intermediate_size is read", "moe_intermediate_size")
        dense, routed = config.size(dense), inner
    some = partial(
        MoE,
        features,
        routed,
        f,
        experts=config.size(config.named("n_routed_experts", "num_local_experts"), 256),
        top=config.size("num_experts_per_tok", 6),
        scores="sigmoid",
        scale=config("route_scale", 8.0),
        choice_bias=True,
        always=config.size("n_shared_experts", 2),
    )
    one = partial(GLU, features, dense, f)
    return {
        "dense": (partial(Gained, one), names.dense(dense)),
        "sparse": (partial(Gained, some), names.sparse),
    }


def text(config: Config, names: Written, **fields: Any) -> Description:
    depth, features = config.depth("num_hidden_layers", 66), config.size("hidden_size", 6144)
    eps = config("rms_norm_eps", 1e-6)
    config.ignore("of blocks that no logit needs", MTP)
    config.ignore(UNREAD, "rms_norm_eps_moe_gate tie_word_embeddings")
    config.ignore(RUNNING, "number_of_conv_states")
    for name, (meaning, value) in ALWAYS.items():
        config.only(name, meaning, value)

    def local():
        near = config("local_layer_ids", [i for i in range(depth) if (i + 1) % 6])
        return ["hybrid_sliding" if i in near else "hybrid" for i in range(depth)]

    def dense():
        first = config.size("dense_mlp_idx", 0, least=0)
        return ["dense" if i < first else "sparse" for i in range(depth)]

    kinds = config.each("layer_types", depth, {k: k for k in KINDS}, local, "local_layer_ids")
    known = feeds(config, names)
    second = config.each("mlp_layer_types", depth, known, dense, "dense_mlp_idx")
    attends = {kind: attention(config, kind, eps) for kind in KINDS}
    width = attends["hybrid"].keywords["conv"]
    conv, branches = partial(ResidualConv, features, width), []
    for i, (kind, (feed, fed)) in enumerate(zip(kinds, second, strict=True)):
        at = f"{names.blocks}.{i}"
        parts = (attends[kind], names.attended, names.attention), (feed, fed, "mlp")
        for (layer, own, below), norm, around in zip(parts, names.norms, names.convs(at)):
            options: dict[str, Any] = dict(norm=f"{at}.{norm}", then=conv, around=around)
            branches.append(Branch(layer, own, f"{at}.{below}", **options))
    rows = config.size("vocab_size", 201024)
    tokens = min(rows, config.size("unpadded_vocab_size", rows))
    return Description(
        vocabulary=tokens,
        rows=rows,
        features=features,
        branches=tuple(branches),
        norm=partial(Norm, eps=eps),
        embed=names.embed,
        first=names.first,
        head=names.head,
        last=names.last,
        logits_scale=1 / config.positive("logits_mup_width_multiplier", 24.0),
        context=config.context,
        **fields,
    )


def inkling_text(config: Config) -> Description:
    """Inkling, of Thinking Machines: the text model alone, as transformers saves it.

    The equations are those of `inkling_mm_model`.
    """
    return text(config, TRANSFORMERS)


def inkling_mm_model(config: Config) -> Description:
    """Inkling (thinkingmachines/Inkling), the text model, as transformers 5.24 has it.

        x <- x + c(attention(rms(x))),  x <- x + c(g f(rms(x)))        c(y) = y + conv(y)
        f = glu, or experts: of the best by sigmoid and those of all tokens, weighed by their
            sigmoids over the sum of these;  g: one number

    Attention sees a window in five blocks of six, and has no positions: each query scores the
    distances, and in full attention scores grow with the logarithm of the position. Its keys and
    values go through short convolutions too. Of the tokens those beyond unpadded_vocab_size are
    none. What sees images and hears (model.visual, model.audio) and what predicts the tokens after
    the next (model.mtp) are kept, not run.
    """
    config.ignore("of what sees and hears, beside the text model", TOWERS)
    config.ignore("of blocks that no logit needs", "mtp_config")
    config.ignore(UNREAD, "tie_word_embeddings")
    inner = config.inside("text_config")
    inner.only("model_type", "the text model", "inkling_text", "inkling_model")
    return text(inner, RELEASE, beside=("model.audio.", "model.visual.", "model.mtp."))
