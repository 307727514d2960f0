"""Qwen3-Next and Qwen3.5: gated delta rules, and gated attention in every fourth block."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seqjax.hf.config import RUNNING, UNREAD, Config
from seqjax.hf.decoder import Description, Names, moved
from seqjax.hf.delta import delta, interleaved, linear
from seqjax.hf.parts import (
    ATTENTION,
    FEED,
    Part,
    attention,
    block,
    describe,
    expert_names,
    experts,
    feed,
)
from seqjax.hf.tensors import Halves, Split, Transposed

MIXED: Names = {
    "conv1d": "conv",
    "A_log": "A_log",
    "dt_bias": "dt_bias",
    "norm": "norm",
    "out_proj": "W_o",
}
APART: Names = {
    **MIXED,
    "in_proj_qkv": "W_qkv",
    "in_proj_z": "W_g",
    "in_proj_b": "W_beta",
    "in_proj_a": "W_alpha",
}
BESIDE: Names = {
    "gate": "W_r",
    **moved(FEED, "shared_expert", "shared"),
    "shared_expert_gate": "w_shared",
}
EXPERTS: Names = {**BESIDE, **expert_names("gate_proj", "up_proj", "down_proj")}
STACKED: Names = {  # as the releases of Qwen3.5 have them
    **BESIDE,
    "experts.gate_up_proj": Halves("W_1", "W_2"),
    "experts.down_proj": Transposed("W_3"),
}
PLACES = ("model", "model.language_model")
TOWERS = """
    image_token_id language_model_only video_token_id vision_config vision_end_token_id
    vision_start_token_id
"""
MTP = "mtp_num_hidden_layers mtp_use_dedicated_embeddings"


def gated(config: Config, eps: float, turned: float = 0.25, **more) -> Part:
    """Attention with a gate, of which q_proj makes a head's queries and gate side by side."""
    heads = config.size("num_attention_heads")
    size = config.size("head_dim", config.size("hidden_size") // heads)
    names = {**ATTENTION, "q_proj": Split("W_q", ("W_gate",), interleaved(heads, size, size))}
    options = dict(head_size=size, qk_norm="head", norm_offset=1.0, norm_eps=eps, gate=True)
    return attention(config, **options, **config.rope(turned), **more), names, "self_attn"


def routed(config: Config, names: Names, renormalise: bool = True, top: int = 8) -> Part:
    some = experts(
        config,
        config.size("moe_intermediate_size", 512),
        experts=config.size("num_experts", 512, least=0),
        top=config.size("num_experts_per_tok", top),
        renormalise=renormalise,
        shared=config.size("shared_expert_intermediate_size", 512),
        shared_gate=True,
    )
    return some, names, "mlp"


def hybrid(
    config: Config,
    names: Names,
    second: Callable[[int], Part],
    at: str = "model",
    **fields,
) -> Description:
    """names: of the delta rule's tensors; second: the branch after the mixer of a block."""
    eps = config("rms_norm_eps", 1e-6)
    config.only("attn_output_gate", "attention is gated", True)
    config.ignore(RUNNING, "mamba_ssm_dtype")
    config.ignore(UNREAD, "mlp_only_layers")
    config.ignore("of blocks that no logit needs", MTP)
    config.only("hidden_act", "the activation around the recurrence", "silu")
    mix, attend = (delta(config, eps), names, "linear_attn"), gated(config, eps)
    branches = []
    for i, recurrent in enumerate(linear(config, config.depth())):
        branches += block(
            f"{at}.layers.{i}",
            ("input_layernorm", "post_attention_layernorm"),
            mix if recurrent else attend,
            second(i),
        )
    # mtp: what predicts the tokens after the next one, for speculation
    fields = {"beside": ("mtp.",), **fields}
    embed, last = f"{at}.embed_tokens", f"{at}.norm"
    return describe(config, branches, eps=eps, offset=1.0, embed=embed, last=last, **fields)


def qwen3_next(config: Config) -> Description:
    """Qwen3-Next, of Alibaba: Qwen3-Next-80B-A3B.

        x <- x + mixer(RMSNorm(x)), x <- x + experts(RMSNorm(x))       norms store weight - 1

    Of four blocks three mix by a gated delta rule (arXiv:2412.06464), whose values have twice as
    many heads as its keys, and one by grouped-query attention with a gate (arXiv:2505.06708),
    normed queries and keys, and a quarter of each head turned. Experts: the `top` best by softmax
    and a shared one behind a gate; in some blocks, as the config may say, an MLP. Blocks that
    predict the tokens after the next (mtp) are kept, not run.
    """
    config.only("use_sliding_window", "attention sees a window of the past", False)
    config.ignore("no window is used", "max_window_layers sliding_window")
    groups, heads = config.size("linear_num_key_heads"), config.size("linear_num_value_heads")
    K, shared = config.size("linear_key_head_dim"), heads // groups
    V = shared * config.size("linear_value_head_dim")
    names = {
        **MIXED,
        "in_proj_qkvz": Split("W_qkv", ("W_g",), interleaved(groups, K, K, V, V)),
        "in_proj_ba": Split("W_beta", ("W_alpha",), interleaved(groups, shared, shared)),
    }
    plain = feed(config), FEED, "mlp"
    some = routed(config, EXPERTS, config("norm_topk_prob", True), 10)
    some = some if config.size("num_experts", 512, least=0) else plain
    dense, every = config("mlp_only_layers", []), config.size("decoder_sparse_step", 1)
    return hybrid(
        config, names, lambda i: some if i not in dense and (i + 1) % every == 0 else plain
    )


def qwen3_5_text(config: Config, places: Sequence[str] = PLACES, **fields) -> Description:
    """Qwen3.5, of Alibaba, without experts: the text model alone, as transformers saves it.

    The equations are those of `qwen3_5`.
    """
    plain = feed(config), FEED, "mlp"
    fields |= dict(at=places[config.layout], layouts=len(places))
    return hybrid(config, APART, lambda i: plain, **fields)


def qwen3_5_moe_text(config: Config, places: Sequence[str] = PLACES, **fields) -> Description:
    """Qwen3.5, of Alibaba, with experts: the text model alone, as transformers saves it.

    The equations are those of `qwen3_5_moe`.
    """
    stored, place = divmod(config.layout, len(places))
    some = routed(config, (EXPERTS, STACKED)[stored])
    fields |= dict(at=places[place], layouts=2 * len(places))
    return hybrid(config, APART, lambda i: some, **fields)


def qwen3_5(config: Config) -> Description:
    """Qwen3.5, of Alibaba, without experts: the text model of Qwen3.5-0.8B, 2B, 4B, 9B and 27B.

        x <- x + mixer(RMSNorm(x)), x <- x + MLP(RMSNorm(x))           norms store weight - 1

    Qwen3-Next with a gated MLP in every block; the matrices of the delta rule are stored one by
    one. Positions of text are the same number three times, of which mrope makes the plain rotary
    ones. What sees images and videos (model.visual) and what predicts the tokens after the next
    (mtp) are kept, not run.
    """
    return text(config, qwen3_5_text)


def qwen3_5_moe(config: Config) -> Description:
    """Qwen3.5, of Alibaba, with experts: the text model of Qwen3.5-35B-A3B to 397B-A17B.

        x <- x + mixer(RMSNorm(x)), x <- x + experts(RMSNorm(x))       norms store weight - 1

    Qwen3-Next with renormalised experts and a shared one in every block, stored together or one by
    one. The rest as in `qwen3_5`.
    """
    return text(config, qwen3_5_moe_text)


def text(config: Config, of: Callable[..., Description]) -> Description:
    """The text model of a config that has a tower for images beside it."""
    config.ignore("of what sees images, beside the text model", TOWERS)
    beside = ("mtp.", "model.visual.")
    inner = config.inside("text_config")
    inner.only("model_type", "the text model", f"{config.kind}_text")
    return of(inner, ["model.language_model"], beside=beside, whole=config)
