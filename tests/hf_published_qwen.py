"""As hf_published.py: releases of Qwen3.5 and of Nemotron-H."""

HYBRID = dict(
    attention_bias=False, attention_dropout=0.0, attn_output_gate=True, bos_token_id=None,
    dtype="bfloat16", eos_token_id=248044, full_attention_interval=2, head_dim=8, hidden_act="silu",
    hidden_size=8, initializer_range=0.02, layer_types=["linear_attention", "full_attention"],
    linear_conv_kernel_dim=4, linear_key_head_dim=4, linear_num_key_heads=1,
    linear_num_value_heads=2, linear_value_head_dim=4, mamba_ssm_dtype="float32",
    max_position_embeddings=262144, mtp_num_hidden_layers=1, mtp_use_dedicated_embeddings=False,
    num_attention_heads=2, num_hidden_layers=2, num_key_value_heads=1, pad_token_id=None,
    rms_norm_eps=1e-06, rope_parameters=dict(
        mrope_interleaved=True, mrope_section=[1, 0, 0], partial_rotary_factor=0.25,
        rope_theta=10000000, rope_type="default",
    ),
    tie_word_embeddings=False, use_cache=True, vocab_size=11,
)  # fmt: skip
DENSE = dict(HYBRID, intermediate_size=12, mlp_only_layers=[], model_type="qwen3_5_text")
ROUTED = dict(
    HYBRID, model_type="qwen3_5_moe_text", moe_intermediate_size=3, num_experts=4,
    num_experts_per_tok=2, output_router_logits=False, router_aux_loss_coef=0.001,
    shared_expert_intermediate_size=3,
)  # fmt: skip
IMAGES = dict(
    image_token_id=248056, language_model_only=False, tie_word_embeddings=False,
    transformers_version="4.57.0.dev0", video_token_id=248057, vision_config=dict(
        deepstack_visual_indexes=[], depth=27, hidden_act="gelu_pytorch_tanh", hidden_size=1152,
        in_channels=3, initializer_range=0.02, intermediate_size=4304, model_type="qwen3_5",
        num_heads=16, num_position_embeddings=2304, out_hidden_size=4096, patch_size=16,
        spatial_merge_size=2, temporal_patch_size=2,
    ),
    vision_end_token_id=248054, vision_start_token_id=248053,
)  # fmt: skip
NEMOTRON = dict(
    architectures=["NemotronHForCausalLM"], attention_bias=False, attention_dropout=0.0,
    bos_token_id=1, chunk_size=128, conv_kernel=4, expand=2, hidden_dropout=0.0, hidden_size=8,
    initializer_range=0.02, intermediate_size=12, layer_norm_epsilon=1e-05, mamba_head_dim=4,
    mamba_hidden_act="silu", mamba_num_heads=4, mamba_proj_bias=False, mlp_bias=False,
    mlp_hidden_act="relu2", model_type="nemotron_h", n_groups=2, num_attention_heads=2,
    num_hidden_layers=4, num_key_value_heads=1, num_logits_to_keep=1, pad_token_id=0,
    rescale_prenorm_residual=True, residual_in_fp32=False, sliding_window=None, ssm_state_size=4,
    tie_word_embeddings=False, time_step_floor=0.0001, time_step_limit=[0.0, float("inf")],
    time_step_max=0.1, time_step_min=0.001, use_bias=False, use_cache=True, use_conv_bias=True,
    use_mamba_kernels=True, vocab_size=11,
)  # fmt: skip
PUBLISHED = {
    "qwen3.5-9b": dict(
        IMAGES, architectures=["Qwen3_5ForConditionalGeneration"], model_type="qwen3_5",
        text_config=DENSE,
    ),
    "qwen3.5-9b text": dict(
        DENSE, architectures=["Qwen3_5ForCausalLM"], transformers_version="5.24.0"
    ),
    "qwen3.5-35b-a3b": dict(
        IMAGES, architectures=["Qwen3_5MoeForConditionalGeneration"], model_type="qwen3_5_moe",
        text_config=ROUTED,
    ),
    "qwen3.5-35b-a3b text": dict(
        ROUTED, architectures=["Qwen3_5MoeForCausalLM"], transformers_version="5.24.0"
    ),
    "nemotron-h-8b": dict(
        NEMOTRON, attention_head_dim=4, eos_token_id=2, hybrid_override_pattern="M-M*",
        max_position_embeddings=8192, rms_norm_eps=1e-05, time_step_rank=256,
        torch_dtype="bfloat16", transformers_version="4.48.0.dev0",
        auto_map={"AutoConfig": "configuration_nemotron_h.NemotronHConfig"},
    ),
    "nemotron-3-nano-30b-a3b": dict(
        NEMOTRON, eos_token_id=11, head_dim=4, hybrid_override_pattern="MEM*",
        mamba_ssm_cache_dtype="float32", max_position_embeddings=262144, moe_intermediate_size=3,
        moe_shared_expert_intermediate_size=5, n_group=1, n_routed_experts=4, n_shared_experts=1,
        norm_eps=1e-05, norm_topk_prob=True, num_experts_per_tok=2, partial_rotary_factor=1.0,
        rope_theta=10000, routed_scaling_factor=2.5, topk_group=1, dtype="bfloat16",
        transformers_version="4.55.4",
    ),
    "nemotron-3-super-120b-a12b": dict(
        NEMOTRON, eos_token_id=2, head_dim=4,
        layers_block_type=["mamba", "moe", "mamba", "attention"],
        mamba_ssm_cache_dtype="float32", max_position_embeddings=262144, moe_intermediate_size=3,
        moe_latent_size=4, moe_shared_expert_intermediate_size=5, moe_shared_expert_overlap=True,
        mtp_layers_block_type=["attention", "moe"], n_group=1, n_routed_experts=4,
        n_shared_experts=1, norm_topk_prob=True, num_experts_per_tok=2, num_nextn_predict_layers=1,
        routed_scaling_factor=5.0, topk_group=1, dtype="bfloat16", transformers_version="5.3.0",
    ),
}  # fmt: skip
