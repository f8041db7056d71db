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
    "kv_lora_rank": 32,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "index_topk": 8,
    "index_n_heads": 32,  # with few, scores of many positions are 0 and their order is anybody's
    "index_head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

SPECIAL: dict[str, dict[str, object]] = {  # where the sizes above give no model with experts
    "bailing_hybrid": {
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "n_group": 1,
        "topk_group": 1,
    },
    "beam": {"mlp_layer_types": ["dense", "sparse", "sparse"]},
    "gemma4_text": {"enable_moe_block": True, "top_k_experts": 2},
    "jamba": {"attn_layer_period": 3, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    **{
        name: {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
        for name in ("granitemoehybrid", "kimi_linear", "minimax", "qwen3_5_moe_text", "qwen3_next")
    },
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(model_type: str, **changes: object) -> PretrainedConfig:
    """The architecture's config with every size that it knows made small."""
    if model_type == "qwen3_5_moe":  # an image-text type, whose language model is one of its own
        return AutoConfig.for_model(model_type, text_config=tiny_config("qwen3_5_moe_text", **changes).to_dict())
    known = set(AutoConfig.for_model(model_type).to_dict())
    sizes = {k: v for k, v in SIZES.items() if k in known}
    if "kv_lora_rank" in known:  # compressed attention has as many key heads as heads
        sizes |= {"head_dim": 8, "num_key_value_heads": 4}
    if "text_config" in known and "n_routed_experts" not in known:  # a wrapper, whose text model is served
        return tiny_config(AutoConfig.for_model(model_type).get_text_config().model_type, **changes)
    return AutoConfig.for_model(model_type, **{**sizes, **SPECIAL.get(model_type, {}), **changes})


def tiny_model(config: PretrainedConfig) -> PreTrainedModel:
    """Random weights, large enough that a wrong expert shows in the logits, in every vector as well."""
    torch.manual_seed(1)
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if model_class.config_class is type(config.get_text_config()):
        config = config.get_text_config()
    model = model_class._from_config(config, dtype=torch.float32).eval()
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.08)
        else:
            parameter.data += 0.1 * torch.randn_like(parameter)
    kept = model.state_dict(keep_vars=True)
    for name in dict(model.named_buffers()).keys() & kept.keys():  # router corrections
        kept[name].add_(0.1 * torch.randn_like(kept[name]))
    return model


@torch.no_grad()
def vary_vectors(model: PreTrainedModel) -> PreTrainedModel:
    """Add random numbers to every vector, such as norms and biases, which have the same value in each place before."""
    for tensor in model.state_dict().values():  # without buffers that are computed, such as frequencies
        if tensor.dim() == 1 and tensor.is_floating_point():
            tensor.add_(torch.randn_like(tensor), alpha=0.2)
    return model


def save_tiny(model_type: str, folder: Path, *, varied: bool = False, **changes: object) -> PreTrainedModel:
    """Write a tiny checkpoint with a tokenizer to `folder` and return the model as transformers runs it.

    With `varied` its vectors are random as well.
    """
    model = tiny_model(tiny_config(model_type, **changes))
    if varied:
        vary_vectors(model)
    model.save_pretrained(folder)
    letters().save_pretrained(folder)
    return model
