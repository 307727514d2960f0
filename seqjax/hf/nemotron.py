"""Nemotron-H: Mamba-2, attention without positions, MLPs and experts, one of them in each block."""

from __future__ import annotations

import math
from functools import partial

from seqjax.hf.config import RUNNING, START, UNREAD, Config
from seqjax.hf.decoder import Description, Names, moved
from seqjax.hf.mamba import MAMBA2
from seqjax.hf.parts import ATTENTION, attention, block, describe
from seqjax.hf.tensors import Stacked
from seqjax.layers.ssm.mamba2 import Mamba2
from seqjax.nn.experts import MoE
from seqjax.nn.linear import MLP

FEED: Names = {"up_proj": "W_1", "down_proj": "W_2"}
EXPERTS: Names = {
    "gate": "W_r",
    "gate.e_score_correction_bias": "choice_bias",
    "fc1_latent_proj": "W_in",
    "fc2_latent_proj": "W_out",
    "experts.{}.up_proj": Stacked("W_1"),
    "experts.{}.down_proj": Stacked("W_3"),
    **moved(FEED, "shared_experts", "shared"),
}
LETTERS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
KINDS = {kind: kind for kind in LETTERS.values()}
KINDS |= {"mamba": "linear_attention", "attention": "full_attention"}
MTP = "mtp_hybrid_override_pattern mtp_layers_block_type num_nextn_predict_layers"


def kinds(config: Config) -> list[str]:
    """What each block is: a list of words, or a pattern with a letter for each."""
    name, older = "layers_block_type", "hybrid_override_pattern"
    if config.fields.get(name) is None:
        pattern = config(older, "ME*-")
        if set(pattern) - set(LETTERS):
            raise config.wrong(older, f"a block is one of {' '.join(LETTERS)}")
        words = [LETTERS[letter] for letter in pattern]
    else:
        words = config(name, [])
    depth = len(words)
    config.only("num_hidden_layers", f"{name} or {older} has {depth} blocks", depth)
    return config.each(name, depth, KINDS, lambda: words, older)


def mixer(config: Config, eps: float):
    heads = config.size("mamba_num_heads", 128)
    return partial(
        Mamba2,
        config.size("hidden_size"),
        state=config.size("ssm_state_size", 128),
        heads=heads,
        groups=config.size("n_groups", 8),
        conv=config.size("conv_kernel", 4),
        inner=heads * config.size("mamba_head_dim", 64),
        dt_limit=(config("time_step_min", 0.001), math.inf),
        norm_eps=eps,
        bias=config("use_bias", False),
        conv_bias=config("use_conv_bias", True),
    )


FIELDS = {  # that blocks of one kind alone read; saved with or without such blocks
    "linear_attention": """
        ssm_state_size mamba_num_heads n_groups conv_kernel mamba_head_dim time_step_min use_bias
        use_conv_bias
    """,
    "full_attention": "num_attention_heads num_key_value_heads",
    "mlp": "intermediate_size",
    "moe": """
        moe_intermediate_size n_routed_experts num_experts_per_tok moe_latent_size n_group
        moe_shared_expert_intermediate_size norm_topk_prob routed_scaling_factor topk_group
    """,
}


def experts(config: Config, f, bias: bool):
    return partial(
        MoE,
        config.size("hidden_size"),
        config.size("moe_intermediate_size", 7688),
        f,
        gated=False,
        bias=bias,
        experts=config.size("n_routed_experts", 8),
        top=config.size("num_experts_per_tok", 2),
        latent=config.size("moe_latent_size", None),
        shared=config.size("moe_shared_expert_intermediate_size", 7688),
        scores="sigmoid",
        choice_bias=True,
        renormalise=config("norm_topk_prob", True),
        scale=config("routed_scaling_factor", 1.0),
        groups=config.size("n_group", 1),
        top_groups=config.size("topk_group", 1),
    )


def nemotron_h(config: Config) -> Description:
    """Nemotron-H, of NVIDIA: Nemotron-H-8B to 56B, Nemotron-Nano-9B-v2, Nemotron-3-Nano and -Super.

        x <- x + mixer(RMSNorm(x))              every block is one branch, one of four kinds:
        M   Mamba-2, the norm after the gate over each group; dt at least time_step_min
        *   grouped-query attention without positions
        -   W_2 relu(W_1 x)^2
        E   shared(x) + W_out sum_e w_e E_e(W_in x), each expert as -; the `top` best by sigmoid
            plus a bias, of the best groups; W_in and W_out only with moe_latent_size

    arXiv:2504.03624 (Nemotron-H), 2508.14444 (Nano 2), 2512.20848 (Nemotron 3). Blocks that predict
    the tokens after the next (mtp) are kept, not run. One by one the reference does not bound dt
    from below, at once it does: here both do.
    """
    features, eps = config.size("hidden_size"), config("layer_norm_epsilon", 1e-5)
    config.only("mamba_hidden_act", "the activation around the recurrence", "silu")
    config.ignore(RUNNING, "mamba_ssm_cache_dtype use_mamba_kernels")
    config.ignore(START, "rescale_prenorm_residual time_step_max time_step_floor")
    config.ignore(UNREAD, "expand mamba_proj_bias time_step_limit time_step_rank")
    config.ignore(RUNNING, "residual_in_fp32 moe_shared_expert_overlap")
    config.ignore(UNREAD, "attention_bias n_shared_experts norm_eps rms_norm_eps")
    config.ignore("there are no positions", "rope_theta rope_parameters partial_rotary_factor")
    config.ignore("of blocks that no logit needs", MTP)
    config.only("rope_scaling", "there are no positions", None)
    config.only("sliding_window", "attention sees a window of the past", None)
    size = config.size("head_dim", config.size("attention_head_dim", 128))
    config.only("attention_head_dim", "it must equal head_dim", size)
    f, bias = config.activation("mlp_hidden_act", "relu2"), config("mlp_bias", False)
    make = {
        "linear_attention": lambda: (mixer(config, eps), MAMBA2, "mixer"),
        "full_attention": lambda: (
            attention(config, head_size=size, bias=False, rotary_fraction=0.0),
            ATTENTION,
            "mixer",
        ),
        "mlp": lambda: (
            partial(MLP, features, config.size("intermediate_size", 21504), f, bias=bias),
            FEED,
            "mixer",
        ),
        "moe": lambda: (experts(config, f, bias), EXPERTS, "mixer"),
    }
    there = kinds(config)
    layers = {kind: make[kind]() for kind in dict.fromkeys(there)}
    for kind, fields in FIELDS.items():
        config.ignore("no block is of this kind", "" if kind in there else fields)
    branches = []
    for i, kind in enumerate(there):
        branches += block(f"backbone.layers.{i}", ["norm"], layers[kind])
    return describe(
        config,
        branches,
        eps=eps,
        embed="backbone.embeddings",
        last="backbone.norm_f",
        beside=("mtp.",),
    )
