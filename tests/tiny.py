"""Tiny random float32 models of any architecture."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from tests.tokenizers import letters

SIZES = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "num_experts": 8,
    "num_local_experts": 8,
    "n_routed_experts": 8,
    "moe_num_experts": 8,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "moe_top_k": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 48,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "sliding_window": 8,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

SPECIAL: dict[str, dict[str, object]] = {  # where the sizes above give no model with experts
    "beam": {"mlp_layer_types": ["dense", "sparse", "sparse"]},
    "gemma4_text": {"enable_moe_block": True, "top_k_experts": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(model_type: str, **changes: object) -> PretrainedConfig:
    """The architecture's config with every size that it knows made small."""
    known = set(AutoConfig.for_model(model_type).to_dict())
    sizes = {k: v for k, v in SIZES.items() if k in known}
    if "kv_lora_rank" in known:  # compressed attention has as many key heads as heads
        sizes |= {"head_dim": 8, "num_key_value_heads": 4}
    return AutoConfig.for_model(model_type, **{**sizes, **SPECIAL.get(model_type, {}), **changes})


def tiny_model(config: PretrainedConfig) -> PreTrainedModel:
    """Random weights, large enough that a wrong expert shows in the logits."""
    torch.manual_seed(1)
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._from_config(config, dtype=torch.float32).eval()
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.08)
    return model


def save_tiny(model_type: str, folder: Path, **changes: object) -> PreTrainedModel:
    """Write a tiny checkpoint with a tokenizer to `folder` and return the model as transformers runs it."""
    model = tiny_model(tiny_config(model_type, **changes))
    model.save_pretrained(folder)
    letters().save_pretrained(folder)
    return model
