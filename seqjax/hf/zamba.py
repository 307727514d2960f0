"""Zamba and Zamba2: Mamba, and attention blocks that several layers share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import nnx

from seqjax.hf.config import RUNNING, START, UNREAD, Config
from seqjax.hf.decoder import Branch, Description, Names, moved, under
from seqjax.hf.mamba import KERNELS, MAMBA2, rank
from seqjax.hf.parts import ATTENTION, FEED, describe, feed
from seqjax.hf.tensors import Shaped, Split, Transposed
from seqjax.layers.attention.attention import Attention
from seqjax.layers.hybrid.zamba import HybridBlock, SharedBlock
from seqjax.layers.ssm.mamba import Mamba
from seqjax.layers.ssm.mamba2 import Mamba2


class Adapted(nnx.Module):
    """W x + B A x: a matrix that is shared, and a low-rank one that is not."""

    def __init__(self, W: nnx.Linear, low: LowRank):
        self.W, self.low = W, low

    def __call__(self, x):
        return self.W(x) + self.low(x)


class LowRank(nnx.Module):
    """B A x."""

    def __init__(self, n: int, rank: int, m: int, *, rngs: nnx.Rngs):
        self.A = nnx.Linear(n, rank, use_bias=False, rngs=rngs)
        self.B = nnx.Linear(rank, m, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.B(self.A(x))


class AdaptedBlock(HybridBlock):
    """A `HybridBlock` that adds low-rank maps of its own to matrices of the shared block."""

    def __init__(
        self, features, mamba, *, rank: int, inner: int, keys: int, rngs: nnx.Rngs, **options
    ):
        """inner: width of the MLP; keys: of q, k and v, 0 if these are not adapted."""
        super().__init__(features, mamba, rngs=rngs, **options)
        self.inner = LowRank(features, rank, 2 * inner, rngs=rngs)
        self.q, self.k, self.v = (
            LowRank(2 * features, rank, keys, rngs=rngs) if keys else None for _ in range(3)
        )

    def attention(self, shared):
        if self.q is None:
            return shared.attention
        own = nnx.merge(*nnx.split(shared.attention))
        for name in ("q", "k", "v"):
            setattr(own, f"W_{name}", Adapted(getattr(own, f"W_{name}"), getattr(self, name)))
        return own

    def feed(self, shared, x):
        glu = shared.feed
        one, two = jnp.split(self.inner(x), 2, axis=1)
        return glu.W_3(glu.f(glu.W_1(x) + one) * (glu.W_2(x) + two))


SHARED: Names = {
    "input_layernorm": "norm",
    "pre_ff_layernorm": "feed_norm",
    **{f"self_attn.{theirs}": f"attention.{ours}" for theirs, ours in ATTENTION.items()},
    **moved(FEED, "feed_forward", "feed"),
}


def shared_names(first: str, n: int, own: Names) -> Names:
    """The tensors of the n-th shared block: stored once, in the first block that uses it."""
    return {f"model.layers.{first}.{t}": under(f"shared.{n}", ours) for t, ours in own.items()}


def names(i: int, mixer: Names, *, hybrid: bool) -> Names:
    """The tensors that block i has for itself."""
    if not hybrid:
        return {f"{i}.mamba.{theirs}": ours for theirs, ours in mixer.items()}
    found = {f"{i}.linear": "W", f"{i}.mamba_decoder.input_layernorm": "norm"}
    for theirs, ours in mixer.items():
        found[f"{i}.mamba_decoder.mamba.{theirs}"] = under("mamba", ours)
    return found


def sharing(config: Config, positions: dict, eps: float, bias: bool):
    """(the attention, the shared block around it)."""
    features, heads = config.size("hidden_size"), config.size("num_attention_heads")
    K = config.size("attention_head_dim", 2 * features // heads)
    config.only("attention_hidden_size", "attention sees twice hidden_size", 2 * features)
    attend = partial(
        Attention,
        2 * features,
        out_features=features,
        heads=heads,
        kv_heads=config.size("num_key_value_heads", heads),
        head_size=K,
        window=config.context,
        scale=(K / 2) ** -0.5,
        **positions,
    )
    return attend, partial(
        SharedBlock, features, attend, feed(config, act="gelu", bias=bias), norm_eps=eps
    )


def hybrids(config: Config, depth: int, words: Callable[[], list[str]], instead="") -> list[bool]:
    """Which blocks use a shared one."""
    name, meanings = "layers_block_type", {"mamba": False, "linear_attention": False}
    found = config.each(name, depth, {**meanings, "hybrid": True}, words, instead)
    if True not in found:
        raise ValueError(f"{config.kind}: no block of {name} is hybrid: there is nothing shared")
    return found


def zamba(config: Config) -> Description:
    """Zamba (Zyphra/Zamba-7B-v1), arXiv:2405.16712: Mamba, and one shared block of attention.

        x <- x + mamba(rms(x + W_i shared([x, e])))   where it is used, with W_i of its own
        x <- x + mamba(rms(x))                        elsewhere; e is the embedding of the token

    The shared block is attention and a gated feed-forward layer on twice the features. The rows of
    in_proj alternate between the two halves.
    """
    features, eps = config.size("hidden_size"), config("rms_norm_eps", 1e-5)
    config.ignore(RUNNING, KERNELS)
    config.ignore(START, "time_step_min time_step_max time_step_floor")
    config.only("hidden_mamba_act", "the activation around the recurrence", "silu")
    heads = config.size("n_mamba_heads", 2)
    inner = int(config("mamba_expand", 2) * features)
    mix = partial(
        Mamba,
        features,
        state=config.size("mamba_d_state", 16),
        conv=config.size("mamba_d_conv", 4),
        inner=inner,
        heads=heads,
        dt_rank=rank(config, "mamba_dt_rank"),
        bias=config("mamba_proj_bias", False),
        conv_bias=config("mamba_conv_bias", True),
    )
    each = heads, inner // heads
    mixer: Names = {
        "in_proj": Split("W_in", (), tuple(range(0, 2 * inner, 2)) + tuple(range(1, 2 * inner, 2))),
        "conv1d": "conv",
        "x_proj_weight": Transposed("W_x.kernel"),
        "dt_proj_weight": Transposed("W_dt.kernel"),
        "dt_proj_bias": Shaped("dt_bias", each),
        "A_log": Shaped("A_log", (*each, -1)),
        "D": Shaped("D", each),
        "out_proj": "W_out",
    }
    _, shared = sharing(config, dict(rotary_fraction=0.0), eps, False)
    depth = config.depth()

    def words():
        period, offset = config.size("attn_layer_period", 6), config("attn_layer_offset", 4)
        later = ["hybrid" if i % period == offset else "mamba" for i in range(depth - 3)]
        return ["mamba", "mamba", "hybrid", *later][:depth]

    uses, branches = hybrids(config, depth, words, "attn_layer_period attn_layer_offset"), []
    for i, hybrid in enumerate(uses):
        here = names(i, mixer, hybrid=hybrid)
        branches.append(use_of(i, mix, here, eps, hybrid=hybrid, features=features))
    own = shared_names(f"{uses.index(True)}.shared_transf", 0, SHARED)
    return described(config, branches, eps, (shared,), own)


def zamba2(config: Config) -> Description:
    """Zamba2 (Zyphra/Zamba2-1.2B, -2.7B, -7B), arXiv:2411.15242: Mamba-2, several shared blocks.

        x <- x + mamba2(rms(x + W_i shared_k([x, e])))   k = i modulo num_mem_blocks
        x <- x + mamba2(rms(x))                          elsewhere; e is the embedding of the token

    Each use has low-rank maps of its own on the feed-forward layer, and with
    use_shared_attention_adapter on the queries, keys and values.
    """
    features, eps = config.size("hidden_size"), config("rms_norm_eps", 1e-5)
    config.ignore(RUNNING, f"{KERNELS} use_mem_eff_path")
    config.ignore(START, "time_step_max time_step_floor")
    config.ignore(UNREAD, "kv_channels num_query_groups")
    config.only("use_long_context", "the rotary positions are stretched", False)
    config.only("use_conv_bias", "the convolution has a bias", True)
    config.only("time_step_limit", "bounds of the time step beside time_step_min", None)
    bias, width = config("add_bias_linear", False), config.size("adapter_rank", 128)
    if config("use_mem_rope", False):
        positions = config.rope(size=config.size("attention_head_dim", None))
    else:
        positions = dict(rotary_fraction=0.0)
        config.ignore("there are no positions", "rope_parameters rope_theta rope_scaling")
    attend, shared = sharing(config, positions, eps, bias)
    heads, blocks = config.size("n_mamba_heads", 8), config.size("num_mem_blocks", 1)
    inner = int(config("mamba_expand", 2) * features)
    config.only("mamba_headdim", "the channels of a head are all channels / n_mamba_heads",
                inner // heads)  # fmt: skip
    mix = partial(
        Mamba2,
        features,
        state=config.size("mamba_d_state", 64),
        heads=heads,
        groups=config.size("mamba_ngroups", 1),
        conv=config.size("mamba_d_conv", 4),
        inner=inner,
        dt_limit=(config("time_step_min", 0.001), math.inf),
        bias=bias,
    )
    depth = config.depth()
    kinds = hybrids(config, depth, lambda: config("layers_block_type"))
    uses = [i for i, hybrid in enumerate(kinds) if hybrid]
    config.only("hybrid_layer_ids", "the blocks that layers_block_type calls hybrid", uses)
    attends = config("use_shared_attention_adapter", False)
    own: Names = {
        **{t: o for t, o in SHARED.items() if not t.endswith(("gate_proj", ".up_proj"))},
        "feed_forward.gate_up_proj": Split("feed.W_1", ("feed.W_2",)),
    }
    options = dict(
        rank=width,
        inner=config.size("intermediate_size"),
        keys=attend.keywords["heads"] * attend.keywords["head_size"] if attends else 0,
    )
    at, branches = "shared_transformer", []
    for i in range(depth):
        hybrid = i in uses
        n = uses.index(i) if hybrid else 0
        here = dict(names(i, MAMBA2, hybrid=hybrid))
        if hybrid:  # the low-rank maps of all uses are stored with the first use of their block
            keeper = f"{uses[n % blocks]}.{at}"
            low = f"{keeper}.feed_forward.gate_up_proj_adapter_list.{n}"
            here |= {f"{low}.0": "inner.A", f"{low}.1": "inner.B"}
            for c in "qkv" if attends else "":
                low = f"{keeper}.self_attn.linear_{c}_adapter_list.{n}"
                here |= {f"{low}.0": f"{c}.A", f"{low}.1": f"{c}.B"}
        branches.append(
            use_of(
                i, mix, here, eps, hybrid=hybrid, features=features, shared=n % blocks, **options
            )
        )
    table = {}
    for n in range(blocks):
        table |= shared_names(f"{uses[n]}.{at}", n, own)
    return described(config, branches, eps, (shared,) * blocks, table)


def use_of(i, mix, names, eps, *, hybrid, features, shared=0, **options) -> Branch:
    """Block i: Mamba alone, or with a shared block before it."""
    if not hybrid:
        return Branch(mix, names, "model.layers", norm=f"model.layers.{i}.input_layernorm")
    kind = AdaptedBlock if options else HybridBlock

    layer = partial(kind, features, mix, norm_eps=eps, **options)
    return Branch(layer, names, "model.layers", with_embedding=True, shared=shared)


def described(config: Config, branches, eps: float, shared, names: Names) -> Description:
    return describe(
        config,
        branches,
        eps=eps,
        last="model.final_layernorm",
        tied=True,
        shared=shared,
        names=names,
        context=config.context,
    )
