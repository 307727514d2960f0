"""More of `hf_published`: configs of hybrids released in 2025 and 2026, their sizes shrunk."""

HYBRIDS = {
    "ling-3.0-flash": dict(
        architectures=["BailingHybridForCausalLM"], attention_bias=False, attention_dropout=0.0,
        eos_token_id=156895, first_k_dense_replace=1, head_dim=4, hidden_act="silu", hidden_size=8,
        initializer_range=0.02, intermediate_size=12, kda_lower_bound=-5.0, kda_safe_gate=True,
        kv_lora_rank=5, layer_group_size=2, model_max_length=262144, model_type="bailing_hybrid",
        moe_intermediate_size=6, moe_renormalize=True, mtp_loss_scaling_factor=0.0,
        num_attention_heads=2, num_expert_group=4, num_experts=8, num_experts_per_token=3,
        num_hidden_layers=2, num_key_value_heads=2, num_nextn_predict_layers=1,
        num_shared_experts=1, output_router_logits=False, pad_token_id=156892, pretraining_tp=1,
        q_lora_rank=None, qk_nope_head_dim=4, qk_rope_head_dim=2, rms_norm_eps=1e-06,
        rope_theta=6000000.0, routed_scaling_factor=2.5, short_conv_kernel_size=4,
        tie_word_embeddings=False, topk_group=2, use_cache=True, v_head_dim=3, vocab_size=11,
    ),
    "lara-4-mini-base": dict(
        architectures=["LaraMiniForCausalLM"], attention_bias=False, attention_dropout=0.0,
        eos_token_id=151643, head_dim=4, hidden_act="silu", hidden_size=8, initializer_range=0.02,
        layer_types=["linear_attention", "sliding_attention", "full_attention"],
        linear_conv_kernel_dim=4, linear_key_head_dim=3, linear_num_key_heads=1,
        linear_num_value_heads=2, linear_value_head_dim=4, max_position_embeddings=131072,
        model_type="lara_mini", moe_intermediate_size=4, norm_topk_prob=True,
        num_attention_heads=2, num_experts=5, num_experts_per_tok=2, num_hidden_layers=3,
        num_key_value_heads=1, output_router_logits=False, rms_norm_eps=1e-06,
        rope_parameters={"rope_theta": 10000.0, "rope_type": "default"},
        router_aux_loss_coef=0.001, shared_expert_intermediate_size=5, sliding_window=512,
        tie_word_embeddings=True, use_cache=True, vocab_size=11,
    ),
}  # fmt: skip
