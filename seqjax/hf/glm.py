"""GLM-5.3-Flash: Kimi delta attention, latent attention to pooled steps, hyper-connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.hf.config import UNREAD, Config
from seqjax.hf.decoder import Branch, Description, Names, moved
from seqjax.hf.kimi import LATENT_QUERIES, delta
from seqjax.hf.parts import FEED, describe, expert_names
from seqjax.hf.streams import Copied, HyperConnection, MeanNorm
from seqjax.hf.tensors import Transposed
from seqjax.layers.attention.latent_attention import LatentAttention
from seqjax.nn.activations import identity, silu
from seqjax.nn.base import Frozen
from seqjax.nn.experts import MoE
from seqjax.nn.linear import GLU, merge_heads, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.dense_attention import attend
from seqjax.ops.look_back import Cache, empty, look_back
from seqjax.ops.pools import choose, members
from seqjax.ops.positions import places


def untrained(module: Any) -> Any:
    """The module with its parameters as weights that no gradient reaches."""
    for name in ("kernel", "weight", "bias"):
        variable = getattr(module, name, None)
        if isinstance(variable, nnx.Param):
            setattr(module, name, Frozen(variable[...]))
    return module


class PooledState(NamedTuple):
    cache: Cache
    place: jax.Array  # of the next step


class PooledAttention(LatentAttention):
    """Latent attention to the steps that an indexer chooses, by pools of `pool` in a row
    (DeepSeek Sparse Attention, arXiv:2512.02556).

        k_p = sum_{s in pool p} softmax_s(W_g x_s + ape_{s mod pool}) * LayerNorm(W_k x_s)
        score_tp = sum_h w_t^h relu(size^-1/2 q_t^h . k_p)       w = heads^-1/2 W_w x, q = W_q c'

    c' is the latent of the queries. Attention sees the steps of the `top` / `pool` best pools that
    are over (of equal scores, the first ones), and those of the pool that is not: up to `top` steps
    it is full attention. Pools are counted from the start of a sequence. A choice has no gradient:
    the indexer is not trained.
    """

    ops = ()
    sequence_parallel = False
    structure = "window of the past"

    def __init__(
        self, features: int, *, heads_i: int, size: int, top: int, pool: int, rngs, **rest
    ):
        super().__init__(features, rngs=rngs, **rest)
        self.heads_i, self.size, self.best, self.pool = heads_i, size, top // pool, pool

        def linear(n, m):
            return untrained(nnx.Linear(n, m, use_bias=False, rngs=rngs))

        self.W_iq = linear(rest["query_latent"], heads_i * size)
        self.W_ik, self.W_iw = linear(features, size), linear(features, heads_i)
        self.k_norm = untrained(Norm(size, centre=True, bias=True, eps=1e-6))
        self.W_ig, self.ape = linear(features, size), Frozen(jnp.zeros((pool, size)))

    def initial(self):
        n = self.window - 1
        items = (jnp.zeros((n, m)) for m in (self.latent, self.size, self.size))
        return PooledState(empty((*items, jnp.zeros(n, jnp.int32))), jnp.zeros((), jnp.int32))

    def run(self, x, h, flow):
        assert self.W_q_down is not None and self.q_norm is not None
        latent = self.q_norm(self.W_q_down(x))
        q, iq = (
            split_heads(self.W_q(latent), self.heads),
            split_heads(self.W_iq(latent), self.heads_i),
        )
        place, after = places(h.place, len(x), flow=flow)
        queries = (q, iq, self.heads_i**-0.5 * self.W_iw(x), place)
        items = (self.norm(self.W_down(x)), self.k_norm(self.W_ik(x)), self.W_ig(x), place)
        y, cache = look_back(self.look, queries, items, h.cache, flow=flow)
        return self.W_o(merge_heads(y).astype(x.dtype)), PooledState(cache, after)

    def look(self, queries: Any, items: Any, i, j, seen):
        q, iq, weight, t = queries
        c, ik, gate, s = items
        score = self.score(iq, weight, ik, gate)
        seen = choose(score, s, t, seen, size=self.pool, best=self.best)
        k, v = self.expand(c, jnp.zeros((len(c), 0), c.dtype))
        return attend(q, k, v, seen, scale=self.K**-0.5)

    def score(self, iq, weight, ik, gate):
        """[n, m], of the pool that ends at each item."""
        pool = members(len(ik), self.pool)
        share = jax.nn.softmax(wide(gate)[pool] + self.ape[...][None], axis=1)
        pooled = jnp.sum(share * wide(ik)[pool], axis=1)
        scores = jax.nn.relu(self.size**-0.5 * jnp.einsum("nhk,mk->nhm", wide(iq), pooled))
        return jnp.einsum("nh,nhm->nm", wide(weight), scores)


LATENT: Names = {
    **LATENT_QUERIES,
    **{
        f"indexer.{theirs}": ours
        for theirs, ours in {
            "wq_b": "W_iq",
            "wk": "W_ik",
            "k_norm": "k_norm",
            "weights_proj": "W_iw",
            "index_kpool_compress_ape": "ape",
        }.items()
    },
    "indexer.index_kpool_compress_gate": Transposed("W_ig.kernel"),
}
TOWER = """
    vision_config image_token_id video_token_id image_start_token_id image_end_token_id
    video_start_token_id video_end_token_id
"""
EXPERTS: Names = {
    "gate": "W_r",
    "gate.e_score_correction_bias": "choice_bias",
    **expert_names("gate_proj", "up_proj", "down_proj"),
    **moved(FEED, "shared_experts", "shared"),
}


@dataclass(frozen=True)
class Clipped:
    """f(z), z cut off at `limit` and, if `below`, at -limit."""

    f: Callable[[jax.Array], jax.Array]
    limit: float
    below: bool

    def __call__(self, z):
        return self.f(jnp.clip(z, -self.limit if self.below else None, self.limit))


def attention(config: Config):
    top, pool = config.size("index_topk", 2048), config.size("index_kpool", 16)
    if top % pool:
        raise config.wrong("index_topk", f"index_kpool = {pool} has to divide it")
    config.ignore("there are no pools", "index_kpool_always_select_tail")
    if pool > 1:
        config.only("index_kpool_always_select_tail", "steps of the last pool are seen", True)
    config.only("qk_rope_head_dim", "attention has no positions", 0)
    return partial(
        PooledAttention,
        config.size("hidden_size"),
        heads=config.size("num_attention_heads"),
        latent=config.size("kv_lora_rank", 512),
        key_size=config.size("qk_nope_head_dim", 256),
        shared_size=0,
        value_size=config.size("v_head_dim", 256),
        query_latent=config.size("q_lora_rank", 1536),
        window=config.context,
        bias=config("attention_bias", False),
        norm_eps=config("rms_norm_eps", 1e-5),
        heads_i=config.size("index_n_heads", 32),
        size=config.size("index_head_dim", 128),
        top=top,
        pool=pool,
    )


def lower_bound(config: Config, old: Config) -> float | None:
    """Of the log decays: -5, where neither form of the config gives another or none (null)."""
    bound = -5.0
    for fields, name in ((config, "linear_lower_bound"), (old, "gate_lower_bound")):
        bound = fields(name, None) if name in fields.fields else bound
    if bound is not None:
        old.ignore("the bound is read", "safe_gate")
        return bound
    return -5.0 if old("safe_gate", True) and old.fields else None


def kinds(config: Config, depth: int) -> list[bool]:
    """Which blocks have the recurrence; the others have to have an indexer of their own."""
    every, offset = config.size("index_topk_freq", 1), config.size("index_skip_topk_offset", 2)
    pattern = config("index_topk_pattern", None)
    letters = {"F": "full", "S": "shared"}

    def indexers():
        if pattern is not None:
            return [letters.get(str(word), str(word)) for word in pattern]
        own = [max(i - offset + 1, 0) % every == 0 for i in range(depth)]
        return ["full" if one else "shared" for one in own]

    def words():
        return ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(depth)]

    meanings = {"linear_attention": True, "indexed_attention": False, "full_attention": False}
    linear = config.each("layer_types", depth, meanings, words)
    unread = "index_topk_freq index_skip_topk_offset index_topk_pattern"
    own = config.each("indexer_types", depth, {"full": True, "shared": False}, indexers, unread)
    if not all(a or b for a, b in zip(linear, own)):
        raise config.wrong("indexer_types", "attention uses the steps that another block chose")
    return linear


def text(config: Config, whole: Config, at: str) -> Description:
    """The text model of a whole one, its tensors under `at`."""
    depth, features = config.depth(), config.size("hidden_size")
    eps = config("rms_norm_eps", 1e-5)
    config.ignore("that of positions, and there are none", "head_dim rope_parameters rope_theta")
    config.ignore(UNREAD, "qk_head_dim")
    config.only("model_type", "the kind of the text model", "glm5_next_text")
    config.only("hidden_act", "the activation around the recurrence", "silu")
    config.only("num_key_value_heads", "it must equal num_attention_heads",
                config.size("num_attention_heads"))  # fmt: skip
    old = config.inside("linear_attn_config")  # of the release
    mix, mixed = delta(config, old)
    mixed = {**mixed, "A_log": "A_log"}
    mix = partial(mix, lower_bound=lower_bound(config, old))
    limit = config("swiglu_limit", 10.0)
    f, g = Clipped(silu, limit, False), Clipped(identity, limit, True)
    inner = config.size("moe_intermediate_size", 2048)
    mlp = partial(GLU, features, config.size("intermediate_size", 12288), f, g=g)
    some = partial(
        MoE,
        features,
        inner,
        f,
        g=g,
        experts=config.size(config.named("n_routed_experts", "num_local_experts"), 288),
        top=config.size("num_experts_per_tok", 8),
        scores="sigmoid",
        renormalise=config("norm_topk_prob", True),
        scale=config("routed_scaling_factor", 2.5),
        choice_bias=True,
        groups=config.size("n_group", 1),
        top_groups=config.size("topk_group", 1),
        shared=inner * config.size("n_shared_experts", 1),
    )
    streams = config.size("hc_mult", 4)
    connection = partial(
        HyperConnection,
        features,
        streams=streams,
        iterations=config.size("hc_sinkhorn_iters", 20),
        eps=config("hc_eps", 1e-6),
        norm_eps=eps,
    )

    def feeds():
        return ["sparse" if i >= 3 else "dense" for i in range(depth)]

    routed = config.each("mlp_layer_types", depth, {"sparse": True, "dense": False}, feeds)

    def branch(i: int, kind: str, norm: str, part: str, layer, names: Names) -> Branch:
        own = {f"hc_{kind}_fn": "W", f"hc_{kind}_base": "base", f"hc_{kind}_scale": "scale"}
        around = moved(own | {norm: "norm"}, f"{at}.layers.{i}", "connection")
        below = f"{at}.layers.{i}.{part}"
        return Branch(layer, names, below, connection=connection, around=around)

    attend, branches = attention(config), []
    for i, recurs in enumerate(kinds(config, depth)):
        first = (mix, mixed) if recurs else (attend, LATENT)
        second = (some, EXPERTS) if routed[i] else (mlp, FEED)
        branches += [
            branch(i, "attn", "input_layernorm", "self_attn", *first),
            branch(i, "ffn", "post_attention_layernorm", "mlp", *second),
        ]
    return describe(
        config,
        branches,
        eps=eps,
        whole=whole,
        embed=f"{at}.embed_tokens",
        last=f"{at}.norm",
        context=config.context,
        enter=partial(Copied, streams),
        leave=partial(MeanNorm, streams, features, eps),
        beside=("model.visual.", f"{at}.layers.{depth}."),
    )


def glm5_next(config: Config) -> Description:
    """GLM-5.3-Flash (zai-org/GLM-5.3-Flash); hyper-connections: arXiv:2512.24880.

        X <- c y + M X,  y = f(rms(sum_i a_i X_i))   X: hc_mult streams; a, c, M of all of them
        f = kda in three blocks of four, or attention to chosen steps, no positions; then
        f = glu in the first blocks, experts + a shared one later, gates cut off at swiglu_limit

    KDA (2510.26692) has log decays bounded below, attention is latent (2405.04434) and sees the
    steps that an indexer chooses (2512.02556), by pools of index_kpool in a row: all of up to
    index_topk steps. The head sees the mean of the streams. What sees images (model.visual) and
    the block that predicts the token after the next are kept, not run. Refused: blocks that take
    over the choice of another (indexer_types).
    """
    config.ignore("of images and videos", TOWER)
    return text(config.inside("text_config"), config, "model.language_model")
