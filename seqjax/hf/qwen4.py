"""Qwen4: gated delta rules, gated attention to chosen pools, hashed n-grams, gated residuals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import isqrt
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.hf.config import RUNNING, UNREAD, Config
from seqjax.hf.decoder import Branch, Description, Names, moved
from seqjax.hf.delta import delta, linear
from seqjax.hf.glm import PooledState, untrained
from seqjax.hf.parts import KINDS, describe
from seqjax.hf.qwen import APART, EXPERTS, MTP, PLACES, STACKED, gated, routed, text
from seqjax.hf.streams import Copied, GatedConnection, GatedMix
from seqjax.hf.tensors import Constant, Joined, Split
from seqjax.layers.attention.attention import Attention
from seqjax.layers.fast_weights.gated_deltanet import GATES
from seqjax.nn.activations import silu
from seqjax.nn.base import Layer
from seqjax.nn.convolution import ShortConv
from seqjax.nn.linear import split_heads, wide
from seqjax.nn.ngrams import BITS, DIGITS, HashedNGrams, token_of
from seqjax.nn.norms import Norm
from seqjax.ops import rope
from seqjax.ops.dense_attention import attend
from seqjax.ops.look_back import empty, look_back
from seqjax.ops.pools import choose, members
from seqjax.ops.positions import places, rotary

# ---- attention to pools -------------------------------------------------------------------------


class PooledQueries(Attention):
    """Attention to the steps that an indexer chooses, by pools of `pool` in a row: Qwen sparse
    attention.

        k_p = turned(rms(mean_{s in pool p} W_ik x_s), by the first step of p)
        score_tp = size^-1/2 sum_h relu(q_t^h . k_p)                    q = turned(rms(W_iq x))

    Attention sees the steps of the `top` / `pool` best pools that are over (of equal scores, the
    first ones), and those of the pool that is not: up to `top` steps it is full attention. Pools
    are counted from the start of a sequence. Queries and keys of both are turned alike. A choice
    has no gradient: the indexer is not trained.
    """

    ops = ()
    sequence_parallel = False
    structure = "window of the past"

    def __init__(
        self, features: int, *, heads_i: int, size: int, top: int, pool: int, rngs, **rest
    ):
        super().__init__(features, rngs=rngs, **rest)
        self.heads_i, self.size, self.best, self.pool = heads_i, size, top // pool, pool
        if self.rates is None:
            self.rates = tuple(rope.plain(int(self.K * self.rotary_fraction), self.base)[0])
        if 2 * len(self.rates) > size:
            raise ValueError(f"{2 * len(self.rates)} channels are turned, the indexer has {size}")

        def linear(m):
            return untrained(nnx.Linear(features, m, use_bias=False, rngs=rngs))

        norm = partial(Norm, size, offset=rest.get("norm_offset", 0.0), eps=rest["norm_eps"])
        self.W_iq, self.W_ik = linear(heads_i * size), linear(size)
        self.iq_norm, self.ik_norm = untrained(norm()), untrained(norm())

    def initial(self):
        n = self.window - 1
        kept = ((self.kv_heads, self.K), (self.kv_heads, self.K), (self.size,))
        items = (jnp.zeros((n, *shape)) for shape in kept)
        return PooledState(empty((*items, jnp.zeros(n, jnp.int32))), jnp.zeros((), jnp.int32))

    def run(self, x, h, flow):
        place, after = places(h.place, len(x), flow=flow)
        q = self.normed(self.W_q(x), self.heads, self.q_norm)
        k = self.normed(self.W_k(x), self.kv_heads, self.k_norm)
        iq = self.iq_norm(split_heads(self.W_iq(x), self.heads_i))
        items = (k, split_heads(self.W_v(x), self.kv_heads), self.W_ik(x), place)
        y, cache = look_back(self.look, (q, iq, place), items, h.cache, flow=flow)
        return self.joined(x, y), PooledState(cache, after)

    def look(self, queries: Any, items: Any, i, j, seen):
        q, iq, t = queries
        k, v, ik, s = items
        turn = partial(rotary, rates=self.rates, gain=self.gain)
        pool = members(len(ik), self.pool)
        pooled = self.ik_norm(jnp.mean(wide(ik)[pool], axis=1))
        pooled = turn(pooled[:, None], j[pool[:, 0]])[:, 0]
        score = jnp.einsum("nhk,mk->nhm", wide(turn(iq, i)), pooled)
        score = self.size**-0.5 * jnp.sum(jax.nn.relu(score), axis=1)
        seen = choose(score, s, t, seen, size=self.pool, best=self.best)
        return attend(turn(q, i), turn(k, j), v, seen, scale=self.scale)


def attention(config: Config, eps: float):
    top, pool = config.size("indexer_budget"), config.size("indexer_compress_ratio")
    config.only("indexer_kv_heads", "keys of the indexer", 1)
    if top % pool:
        raise config.wrong("indexer_budget", f"indexer_compress_ratio = {pool} has to divide it")
    sizes = dict(
        heads_i=config.size("indexer_n_heads"),
        size=config.size("indexer_head_dim"),
        top=top,
        pool=pool,
    )
    layer, names, at = gated(config, eps, 1.0, layer=PooledQueries, **sizes)
    indexer: Names = {
        "index_qk_proj": Split("W_iq", ("W_ik",)),
        "q_layernorm": "iq_norm",
        "k_layernorm": "ik_norm",
    }
    names = {**names, **{f"indexer.{theirs}": ours for theirs, ours in indexer.items()}}
    return layer, names, at


# ---- hashed n-grams -----------------------------------------------------------------------------


class EngramState(NamedTuple):
    tokens: Array  # before this one: `HashedNGrams`
    window: Array  # of the convolution


class Engram(Layer):
    """What the n-grams of a token add to n streams X of D channels (Engram, arXiv:2601.07372).

        u_i = sigmoid(sign(g_i) |g_i|^1/2) V e      g_i = D^-1/2 rms(K e)_i . rms(X)_i
        y = u + silu(conv(rms(u)))                  conv dilated by N

    e are the embeddings of `HashedNGrams`, of orders 2 .. N. The layer is given the streams and
    the digits of the token. Not here, of the paper: one token for those that read alike.
    """

    learned = ""  # no tokens stand before a sequence

    def __init__(
        self,
        features: int,
        *,
        streams: int,
        size: int,
        conv: int,
        norm_eps: float,
        rngs: nnx.Rngs,
        **ngrams: Any,
    ):
        channels = streams * features
        self.streams, self.D = streams, features
        self.features, self.out_features = channels + DIGITS, channels
        self.ngrams = HashedNGrams(size, rngs=rngs, **ngrams)

        def linear(m):
            return nnx.Linear(size, m, use_bias=False, rngs=rngs)

        self.W_k, self.W_v = linear(channels), linear(features)
        self.k_norm, self.q_norm, self.u_norm = (
            Norm(streams, features, offset=1.0, eps=norm_eps) for _ in range(3)
        )
        dilation = self.ngrams.orders + 1
        self.conv = ShortConv(channels, conv, bias=False, dilation=dilation, rngs=rngs)

    def initial(self):
        return EngramState(self.ngrams.initial(), self.conv.initial())

    def run(self, x, h, flow):
        x, token = x[:, : self.out_features], token_of(x[:, self.out_features :])
        e, tokens = self.ngrams(token, h.tokens, flow)
        e = e.astype(x.dtype)
        k, q = (
            wide(norm(split_heads(z, self.streams)))
            for norm, z in ((self.k_norm, self.W_k(e)), (self.q_norm, x))
        )
        g = self.D**-0.5 * jnp.sum(k * q, axis=2, keepdims=True)
        g = jnp.sign(g) * jnp.sqrt(jnp.maximum(jnp.abs(g), 1e-6))
        u = (jax.nn.sigmoid(g) * wide(self.W_v(e))[:, None]).astype(x.dtype)
        c, window = self.conv(self.u_norm(u).reshape(x.shape), h.window, flow)
        return u.reshape(x.shape) + silu(c).astype(x.dtype), EngramState(tokens, window)


def primes(least: int, count: int) -> list[int]:
    """The first ones from `least` on."""
    found: list[int] = []
    n = max(least, 2)
    while len(found) < count:
        if all(n % d for d in range(2, isqrt(n) + 1)):
            found.append(n)
        n += 1
    return found


def multipliers(vocabulary: int, count: int, seed: int) -> tuple[int, ...]:
    """Odd numbers of which a token's product stays below 2^63, drawn by splitmix64."""

    def draw(n: int) -> int:
        z = (seed + 0x9E3779B97F4A7C15 * (n + 2)) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    half = max(1, (2**63 - 1) // vocabulary // 2)
    return tuple(2 * (draw(n) % half) + 1 for n in range(count))


NGRAMS = """
    ple_embed_dim ple_conv_kernel_size ngram_size heads_per_ngram ngram_vocab_size_base
    make_ngram_vocab_size_divisible_by seed split_ngram_parts
"""


def engrams(config: Config, kinds: Sequence[bool], eps: float, streams: int) -> dict[int, Any]:
    """The layers that look n-grams up, and their names, by the number of their block."""
    blocks = sorted(set(config("ple_layer_ids", [])))
    if not blocks:
        config.ignore("no block looks n-grams up", NGRAMS)
        return {}
    fits = [block in range(1, len(kinds) + 1) and kinds[block - 1] for block in blocks]
    if not all(fits):
        raise config.wrong("ple_layer_ids", "it has to name blocks with the recurrence, from 1 on")
    vocabulary = config.size("vocab_size", most=2 ** (BITS * DIGITS))
    features, order = config.size("hidden_size"), config.size("ngram_size", 3, least=2)
    heads = (order - 1) * config.size("heads_per_ngram", 8)
    base = config.size("ngram_vocab_size_base", 20_000_000)
    if len(blocks) * heads * base > config.most:
        raise config.wrong("ngram_vocab_size_base", f"{heads} tables have at least so many rows")
    divisors = primes(base, len(blocks) * heads)
    unit = config.size("make_ngram_vocab_size_divisible_by", 128)
    parts, seed = config.size("split_ngram_parts", 512), config.size("seed", 1234, least=0)
    end = config("eos_token_id")
    end = end[0] if isinstance(end, list) and end else end
    if not isinstance(end, int) or not 0 <= end < vocabulary:
        raise config.wrong("eos_token_id", f"before a sequence stands a token below {vocabulary}")
    found = {}
    for n, block in enumerate(blocks):
        own = divisors[n * heads : (n + 1) * heads]
        numbers = multipliers(vocabulary, order, seed + 10007 * n)
        rows = -(-sum(own) // unit) * unit
        layer = partial(
            Engram,
            features,
            streams=streams,
            size=config.size("ple_embed_dim", features),
            conv=config.size("ple_conv_kernel_size", 4),
            multipliers=numbers,
            divisors=tuple(own),
            end=end,
            rows=rows,
            norm_eps=eps,
        )
        cut = -(-rows // parts)  # of a part but for the last one
        sizes = tuple(min(cut, rows - start) for start in range(0, rows, cut))
        shards = tuple(f"ngram_embedding.shard_{k}.weight" for k in range(len(sizes)))
        table: Names = {
            shards: Joined("table", sizes),
            "layer_multipliers": Constant(np.array(numbers)),
            "ngram_heads_vocab_sizes": Constant(np.array(own)),
            "ngram_heads_offsets": Constant(np.cumsum([0, *own[:-1]])),
        }
        names: Names = {
            **moved(table, "ple_embedding", "ngrams"),
            "key_proj": "W_k",
            "value_proj": "W_v",
            "norm_key": "k_norm",
            "norm_query": "q_norm",
            "norm_conv": "u_norm",
            "conv1d": "conv",
        }
        found[block - 1] = layer, names
    return found


# ---- the model ----------------------------------------------------------------------------------

MIX: Names = {"hc_norm": "norm", "input_mix_weight_down": "W", "input_mix_weight_up": "V"}
INDEXER = "indexer_n_heads indexer_kv_heads indexer_head_dim indexer_budget indexer_compress_ratio"


def qwen4_exp_text(config: Config, places: Sequence[str] = PLACES, **fields) -> Description:
    """Qwen4-exp, of Alibaba: the text model alone, as transformers saves it.

    The equations are those of `qwen4_exp`.
    """
    stored, place = divmod(config.layout, len(places))
    at, features = places[place], config.size("hidden_size")
    eps, streams = config("rms_norm_eps", 1e-6), config.size("hc_count", 4, least=2)
    config.ignore(RUNNING, "mamba_ssm_dtype number_of_conv_states")
    config.ignore(UNREAD, "attn_output_gate intermediate_size mlp_only_layers")
    config.ignore("of blocks that no logit needs", MTP)
    config.only("hidden_act", "the activation around the recurrence", "silu")
    kinds = linear(config, config.depth(), {**KINDS, "indexed_attention": False})
    gate = config.choice("output_gate_type", "silu", {name: name for name in GATES})
    mix = (delta(config, eps, gate_map=gate), APART, "linear_attn")
    config.ignore("no block has attention", f"{INDEXER} rope_parameters" if all(kinds) else "")
    attends = mix if all(kinds) else attention(config, eps)
    some = routed(config, (EXPERTS, STACKED)[stored], config("norm_topk_prob", True), 10)
    mixing = dict(streams=streams, rank=config.size("hc_lowrank", 320), norm_eps=eps)
    connection = partial(GatedConnection, features, **mixing)
    looks, branches = engrams(config, kinds, eps, streams), []
    for i, recurrent in enumerate(kinds):
        prefix = f"{at}.layers.{i}"
        if i in looks:
            layer, own = looks[i]
            branches.append(Branch(layer, own, f"{prefix}.ple", with_tokens=True))
        for part, (layer, own, name) in ("attn", mix if recurrent else attends), ("mlp", some):
            joins = f"{prefix}.{part}_hyper_connection"
            around = {
                **moved(MIX, joins, "connection.mix"),
                f"{joins}.block_inject_weight": "connection.U",
            }
            branches.append(
                Branch(layer, own, f"{prefix}.{name}", connection=connection, around=around)
            )
    last = f"{at}.hyper_connection_mixer"
    mixed = {name: path for name, path in moved(MIX, last, "norm").items() if "norm" not in name}
    return describe(
        config,
        branches,
        eps=eps,
        embed=f"{at}.embed_tokens",
        last=f"{last}.hc_norm",
        enter=partial(Copied, streams),
        leave=partial(GatedMix, features, **mixing),
        names=mixed,
        layouts=2 * len(places),
        **{"beside": ("mtp.",), **fields},
    )


def qwen4_exp(config: Config) -> Description:
    """Qwen4-exp, of Alibaba: the text model of Qwen3.8-Flash-Next.

        X <- X + b y,  y = f(mean_i a_i rms(X)_i)       X: hc_count streams; a, b of all of them
        X <- X + engram(X, tokens)                      before f, in the blocks of ple_layer_ids
        f = gated delta rule in three blocks of four, or attention to chosen steps; then
        f = experts + a shared one                      norms store weight - 1

    Qwen3.5 with gated residuals (`GatedConnection`) in place of its norms and residuals. Attention
    sees the steps that an indexer chooses, by pools of indexer_compress_ratio in a row: all of up
    to indexer_budget steps. Engrams (2601.07372) look hashed n-grams of tokens up in tables. What
    sees images (model.visual) and what predicts the tokens after the next (mtp) are kept, not run.
    """
    return text(config, qwen4_exp_text)
