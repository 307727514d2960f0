"""Zamba and Zamba2: Mamba, and attention blocks that several layers share."""

from __future__ import annotations

import math
from functools import partial

from flax import nnx

from seqjax.hf.config import Config
from seqjax.hf.decoder import Branch, Description, Names, under
from seqjax.hf.mamba import MAMBA2
from seqjax.hf.parts import ATTENTION, FEED, describe, feed
from seqjax.hf.tensors import Shaped, Split, Transposed
from seqjax.layers.attention import Attention
from seqjax.layers.hybrid.zamba import HybridBlock, SharedBlock
from seqjax.layers.ssm.mamba import Mamba
from seqjax.layers.ssm.mamba2 import Mamba2


class Adapted(nnx.Module):
    """W x + B A x: a matrix that is shared, and a low-rank one that is not."""

    def __init__(self, W: nnx.Linear, A: nnx.Linear, *, rngs: nnx.Rngs):
        self.W, self.A = W, A
        self.B = nnx.Linear(A.out_features, W.out_features, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.W(x) + self.B(self.A(x))


class AdaptedBlock(HybridBlock):
    """A `HybridBlock` whose use of the shared weights is its own by low-rank maps."""

    def __init__(
        self, features, shared, mamba, *, make, rank: int, attends: bool, rngs: nnx.Rngs, **options
    ):
        """make: of the shared block; attends: q, k and v are adapted too."""
        super().__init__(features, shared, mamba, rngs=rngs, **options)

        def low(n):
            return nnx.Linear(n, rank, use_bias=False, rngs=rngs)

        common, A = shared.feed, low(features)
        self.feed = type(common)(features, common.W_3.in_features, common.f, rngs=rngs)
        self.feed.W_1 = Adapted(common.W_1, A, rngs=rngs)
        self.feed.W_2 = Adapted(common.W_2, A, rngs=rngs)
        self.feed.W_3 = common.W_3
        if attends:
            self.attention = make(rngs=rngs)
            for name in ("W_q", "W_k", "W_v"):
                W = getattr(shared.attention, name)
                setattr(self.attention, name, Adapted(W, low(2 * features), rngs=rngs))
            self.attention.W_o = shared.attention.W_o


SHARED: Names = {
    "input_layernorm": "shared.norm",
    "pre_ff_layernorm": "shared.feed_norm",
    **{f"self_attn.{theirs}": f"shared.attention.{ours}" for theirs, ours in ATTENTION.items()},
    **{f"feed_forward.{theirs}": f"shared.feed.{ours}" for theirs, ours in FEED.items()},
}


def names(i: int, mixer: Names, *, hybrid: bool, shared: str, first: bool, own: Names) -> Names:
    """The tensors of block i; shared ones are stored once, in the first block that uses them."""
    if not hybrid:
        return {f"{i}.mamba.{theirs}": ours for theirs, ours in mixer.items()}
    found = {f"{i}.linear": "W", f"{i}.mamba_decoder.input_layernorm": "norm"}
    for theirs, ours in mixer.items():
        found[f"{i}.mamba_decoder.mamba.{theirs}"] = under("mamba", ours)
    if first:
        found |= {f"{i}.{shared}.{theirs}": ours for theirs, ours in own.items()}
    return found


def sharing(config: Config, positions: dict, eps: float, bias: bool):
    """(the attention, the shared block around it)."""
    features, heads = config("hidden_size"), config("num_attention_heads")
    K = config("attention_head_dim", 2 * features // heads)
    config.only("attention_hidden_size", 2 * features)
    attend = partial(
        Attention,
        2 * features,
        out_features=features,
        heads=heads,
        kv_heads=config("num_key_value_heads", heads),
        head_size=K,
        window=config.context,
        scale=(K / 2) ** -0.5,
        **positions,
    )
    return attend, partial(SharedBlock, features, attend, feed(config, bias=bias), norm_eps=eps)


def zamba(config: Config) -> Description:
    """One shared block; the rows of in_proj alternate between the two halves."""
    features, eps = config("hidden_size"), config("rms_norm_eps", 1e-5)
    config.neutral("use_mamba_kernels time_step_min time_step_max time_step_floor")
    config.only("hidden_mamba_act", "silu")
    rank, heads = config("mamba_dt_rank", "auto"), config("n_mamba_heads", 2)
    inner = config("mamba_expand", 2) * features
    mix = partial(
        Mamba,
        features,
        state=config("mamba_d_state", 16),
        conv=config("mamba_d_conv", 4),
        inner=inner,
        heads=heads,
        dt_rank=math.ceil(features / 16) if rank == "auto" else rank,
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
    depth = config("num_hidden_layers")
    period, offset = config("attn_layer_period", 6), config("attn_layer_offset", 4)
    uses = [False, False, True] + [i % period == offset for i in range(depth - 3)]
    kinds = config("layers_block_type", ["hybrid" if use else "mamba" for use in uses])
    branches = []
    for i, kind in enumerate(kinds):
        hybrid = kind == "hybrid"
        first = hybrid and "hybrid" not in kinds[:i]
        here = names(i, mixer, hybrid=hybrid, shared="shared_transf", first=first, own=SHARED)
        branches.append(use_of(i, mix, here, eps, hybrid=hybrid, features=features))
    return described(config, branches, eps, (shared,))


def zamba2(config: Config) -> Description:
    """Several shared blocks in turn, each use with low-rank maps of its own."""
    features, eps = config("hidden_size"), config("rms_norm_eps", 1e-5)
    config.neutral("num_query_groups kv_channels time_step_max time_step_floor use_mamba_kernels")
    config.neutral("use_mem_eff_path")
    config.only("use_long_context", False)
    config.only("use_conv_bias", True)
    config.only("time_step_limit", None)
    bias, rank = config("add_bias_linear", False), config("adapter_rank", 128)
    positions = config.rope()
    if not config("use_mem_rope", True):
        positions = dict(rotary_fraction=0.0)
    attend, shared = sharing(config, positions, eps, bias)
    heads, blocks = config("n_mamba_heads", 8), config("num_mem_blocks", 1)
    inner = config("mamba_expand", 2) * features
    config.only("mamba_headdim", inner // heads)
    mix = partial(
        Mamba2,
        features,
        state=config("mamba_d_state", 64),
        heads=heads,
        groups=config("mamba_ngroups", 1),
        conv=config("mamba_d_conv", 4),
        inner=inner,
        dt_limit=(config("time_step_min", 0.001), math.inf),
        bias=bias,
    )
    kinds = config("layers_block_type")
    uses = [i for i, kind in enumerate(kinds) if kind == "hybrid"]
    config.only("hybrid_layer_ids", uses)
    attends = config("use_shared_attention_adapter", False)
    own: Names = {
        **SHARED,
        "feed_forward.gate_up_proj": Split("shared.feed.W_1", ("shared.feed.W_2",)),
        "feed_forward.down_proj": "shared.feed.W_3",
    }
    own = {t: ours for t, ours in own.items() if not t.endswith(("gate_proj", ".up_proj"))}
    branches = []
    for i in range(config("num_hidden_layers")):
        hybrid = i in uses
        n = uses.index(i) if hybrid else 0
        at = "shared_transformer"
        here = dict(names(i, MAMBA2, hybrid=hybrid, shared=at, first=n < blocks, own=own))
        if hybrid:  # the low-rank maps of all uses are stored with the first use of their block
            keeper = f"{uses[n % blocks]}.{at}"
            low = f"{keeper}.feed_forward.gate_up_proj_adapter_list.{n}"
            here |= {f"{low}.0": "feed.W_1.A", f"{low}.1": Split("feed.W_1.B", ("feed.W_2.B",))}
            for c in "qkv" if attends else "":
                low = f"{keeper}.self_attn.linear_{c}_adapter_list.{n}"
                here |= {f"{low}.0": f"attention.W_{c}.A", f"{low}.1": f"attention.W_{c}.B"}
        options = dict(make=attend, rank=rank, attends=attends)
        branches.append(
            use_of(
                i, mix, here, eps, hybrid=hybrid, features=features, shared=n % blocks, **options
            )
        )
    return described(config, branches, eps, (shared,) * blocks)


def use_of(i, mix, names, eps, *, hybrid, features, shared=0, **options) -> Branch:
    """Block i: Mamba alone, or with a shared block before it."""
    if not hybrid:
        return Branch(mix, names, "model.layers", norm=f"model.layers.{i}.input_layernorm")
    kind = AdaptedBlock if options else HybridBlock

    def layer(*, shared, rngs):
        return kind(features, shared, mix, norm_eps=eps, rngs=rngs, **options)

    return Branch(layer, names, "model.layers", with_embedding=True, shared=shared)


def described(config: Config, branches, eps: float, shared) -> Description:
    return describe(
        config,
        branches,
        eps=eps,
        last="model.final_layernorm",
        tied=True,
        shared=shared,
        context=config.context,
    )
