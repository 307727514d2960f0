"""Mamba-2 beside attention: Bamba, Granite 4 (with experts) and Falcon-H1 (both in every block)."""

from __future__ import annotations

from functools import partial

from seqjax.hf.config import RUNNING, START, TRAINING, UNREAD, Config
from seqjax.hf.decoder import Branch, Description, Names
from seqjax.hf.mamba import MAMBA2
from seqjax.hf.parts import (
    ATTENTION,
    FEED,
    MIXERS,
    Parallel,
    Scaled,
    attention,
    block,
    describe,
    experts,
    feed,
)
from seqjax.hf.tensors import Halves, Split, Transposed
from seqjax.layers.ssm.mamba2 import Mamba2

SHARED: Names = {"input_linear": Split("W_1", ("W_2",)), "output_linear": "W_3"}
EXPERTS: Names = {
    "block_sparse_moe.router.layer": "W_r",
    "block_sparse_moe.input_linear.weight": Halves("W_1", "W_2"),
    "block_sparse_moe.output_linear.weight": Transposed("W_3"),
    "shared_mlp.input_linear": Split("shared.W_1", ("shared.W_2",)),
    "shared_mlp.output_linear": "shared.W_3",
}


def mixer(config: Config, eps: float, **options):
    features, heads = config.size("hidden_size"), config.size("mamba_n_heads", 128)
    inner = config.size("mamba_d_ssm", None) or int(config("mamba_expand", 2) * features)
    config.ignore("mamba_d_ssm is read", "mamba_expand")
    config.ignore(RUNNING, "mamba_chunk_size use_mamba_kernels")
    config.ignore(START, "time_step_min time_step_max time_step_floor")
    config.only("hidden_act", "the activation around the recurrence", "silu")
    config.only("mamba_d_head", "the channels of a head are all channels / mamba_n_heads",
                inner // heads, "auto")  # fmt: skip
    return partial(
        Mamba2,
        features,
        state=config.size("mamba_d_state", 256),
        heads=heads,
        groups=config.size("mamba_n_groups", 1),
        conv=config.size("mamba_d_conv", 4),
        inner=inner,
        dt_limit=tuple(config("time_step_limit", [0.0, float("inf")])),
        norm_eps=eps,
        bias=config("mamba_proj_bias", False),
        conv_bias=config("mamba_conv_bias", True),
        **options,
    )


def bamba(config: Config) -> Description:
    """Bamba (ibm-ai-platform/Bamba-9B-v1, -v2): Mamba-2, and attention in a few blocks.

        x <- x + mix(rms(x))                 mix = mamba2, or attention
        x <- x + W_3 (silu(W_1 n) * W_2 n)   n = rms(x)

    Half of every head of attention has rotary positions.
    """
    config.ignore(TRAINING, "z_loss_coefficient")
    config.ignore(UNREAD, "attn_rotary_emb")  # half of every head has positions
    attends = config("attn_layer_indices", [])
    eps = config("rms_norm_eps", 1e-5)
    attend, mix = attention(config, **config.rope(0.5)), mixer(config, eps)
    mlp = feed(config, bias=config("mlp_bias", False))
    branches = []
    for i in range(config.depth()):
        first = (attend, ATTENTION, "self_attn") if i in attends else (mix, MAMBA2, "mamba")
        branches += block(
            f"model.layers.{i}",
            ("input_layernorm", "pre_ff_layernorm"),
            first,
            (mlp, FEED, "feed_forward"),
        )
    return describe(config, branches, eps=eps, last="model.final_layernorm")


def granite(config: Config) -> Description:
    """Granite 4 hybrids (ibm-granite/granite-4.0-h-micro, -tiny, -small).

        x <- x + r mix(rms(x))             mix = mamba2, or attention
        x <- x + r (experts(n) + glu(n))   n = rms(x); the second stands in all releases,
                                           the first in those with num_local_experts

    r is residual_multiplier. Embeddings, scores of attention and logits are multiplied by constants
    too. Attention has no positions unless position_embedding_type is rope.
    """
    config.only("position_embedding_type", "how positions enter", "nope", "rope")
    config.only("normalization_function", "the norm of every block", "rmsnorm")
    config.ignore(START, "init_method")
    if config("position_embedding_type", "nope") == "rope":
        positions = config.rope()
    else:
        positions = dict(rotary_fraction=0.0)
        config.ignore("there are no positions", "rope_parameters rope_theta rope_scaling")
    attend = attention(config, scale=config("attention_multiplier", 1.0), **positions)
    eps, count = config("rms_norm_eps", 1e-6), config.size("num_local_experts", 0, least=0)
    mix = mixer(config, eps)
    shared = config.size("shared_intermediate_size", 1024)
    if count:
        inner, top = config.size("intermediate_size"), config.size("num_experts_per_tok")
        second = (experts(config, inner, experts=count, top=top, shared=shared), EXPERTS, "")
    else:
        config.ignore("there are no experts", "intermediate_size num_experts_per_tok")
        second = (feed(config, shared), SHARED, "shared_mlp")
    depth, branches = config.depth(), []
    older = "layers_block_type"
    kinds = config.each(
        "layer_types", depth, MIXERS, lambda: config(older, ["mamba"] * depth), older
    )
    for i, mamba in enumerate(kinds):
        branches += block(
            f"model.layers.{i}",
            ("input_layernorm", "post_attention_layernorm"),
            (mix, MAMBA2, "mamba") if mamba else (attend, ATTENTION, "self_attn"),
            second,
            beta=config("residual_multiplier", 1.0),
        )
    return describe(
        config,
        branches,
        eps=eps,
        embed_scale=config("embedding_multiplier", 1.0),
        logits_scale=1 / config("logits_scaling", 1.0),
    )


def falcon_h1(config: Config) -> Description:
    """Falcon-H1 (tiiuae/Falcon-H1-0.5B to -34B), arXiv:2507.22448: both mixers in every block.

        x <- x + o_s mamba2(i_s n) + o_a attention(i_a n)   n = rms(x)
        x <- x + d W_3 (silu(g W_1 n) * W_2 n)              n = rms(x)

    The letters before the maps are constants of the config: ssm_in_multiplier and its like,
    key_multiplier at the keys, ssm_multipliers at the five parts of Mamba-2's input,
    mlp_multipliers = [g, d], and those of the embedding and of the logits.
    """
    normed, eps = config("mamba_rms_norm", False), config("rms_norm_eps", 1e-5)
    if not normed:
        config.ignore("there is no norm beside the gate", "mamba_norm_before_gate")
    mix = mixer(
        config,
        eps,
        norm_groups=None if normed else 0,
        norm_first=config("mamba_norm_before_gate", True) if normed else False,
        scales=config("ssm_multipliers", [1.0] * 5),
    )
    size = config.size("head_dim", config.size("hidden_size") // config.size("num_attention_heads"))
    scale = config("key_multiplier", 1.0) * size**-0.5
    both = partial(
        Parallel,
        (mix, attention(config, scale=scale, **config.rope(base=100_000.0))),
        (config("ssm_in_multiplier", 1.0), config("attention_in_multiplier", 1.0)),
        (config("ssm_out_multiplier", 1.0), config("attention_out_multiplier", 1.0)),
    )
    config.only("projectors_bias", "the bias of the last matrix of Mamba-2, as of the first",
                config("mamba_proj_bias", False))  # fmt: skip
    names = {f"mamba.{theirs}": f"layers.0.{ours}" for theirs, ours in MAMBA2.items()}
    names |= {f"self_attn.{theirs}": f"layers.1.{ours}" for theirs, ours in ATTENTION.items()}
    config.only("mamba_use_mlp", "whether a block has a feed-forward layer", True)
    config.only("attn_layer_indices", "the blocks that have attention; all have", None)
    config.ignore(UNREAD, "mlp_expansion_factor")
    gate, down = config("mlp_multipliers", [1.0, 1.0])
    inner, f = config.size("intermediate_size"), Scaled(config.activation("hidden_act"), gate)
    mlp = partial(feed(config, inner).func, config.size("hidden_size"), inner, f,
                  bias=config("mlp_bias", False))  # fmt: skip
    branches = []
    for i in range(config.depth()):
        at = f"model.layers.{i}"
        branches += [
            Branch(both, names, at, norm=f"{at}.input_layernorm"),
            Branch(mlp, FEED, f"{at}.feed_forward", norm=f"{at}.pre_ff_layernorm", beta=down),
        ]
    return describe(
        config,
        branches,
        eps=eps,
        last="model.final_layernorm",
        embed_scale=config("embedding_multiplier", 1.0),
        logits_scale=config("lm_head_multiplier", 1.0),
    )
