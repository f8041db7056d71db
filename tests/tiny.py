"""Tiny random float32 models of any architecture."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

from faasmoe.model.adapter.classes import built_on_meta
from tests.model_types import routes
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
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_heads": 4,
    "linear_head_dim": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "ssm_state_size": 8,
    "mamba_chunk_size": 16,
    "index_topk": 8,
    "index_n_heads": 32,  # with few, scores of many positions are 0 and their order is anybody's
    "index_head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER = {  # what text does not go through
    "num_hidden_layers": 1, "depth": 1, "encoder_layers": 1, "num_layers": 1, "hidden_size": 64,
    "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "num_heads": 4, "embed_dim": 64,
    "d_model": 64, "encoder_ffn_dim": 64, "encoder_attention_heads": 4, "out_hidden_size": 64, "output_dim": 64,
    "text_hidden_size": 64, "projection_dim": 64, "deepstack_visual_indexes": [0],
}  # fmt: skip
TEXT_PARTS = ("text_config", "thinker_config")
LARGEST = 30_000_000  # parameters
OPEN_TEXT = "qwen3_moe"  # for wrappers that take any language model

SPECIAL: dict[str, dict[str, object]] = {  # where the sizes above give no model with experts
    "bailing_hybrid": {
        "n_group": 1, "topk_group": 1, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "jamba": {"attn_layer_period": 3, "attn_layer_offset": 1},
    "beam": {"mlp_layer_types": ["dense", "sparse", "sparse"]},
    "ernie4_5_vl_moe_text": {"moe_intermediate_size": [32, 16], "num_attention_heads": 4},
    "glm5_next_text": {"qk_rope_head_dim": 0},
    "inkling_vision": {"num_hidden_layers": 4, "patch_size": 4},
    "glm4v_moe_text": {
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1],
        },
    },
    "mistral4": {"head_dim": 16},
    "muse_spark_audio": {"num_hidden_layers": 4},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 48},
    "radio": {"video_temporal_patch_size": 2},
    "dbrx": {
        "d_model": 64, "n_heads": 4, "n_layers": 3, "max_seq_len": 256,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        "ffn_config": {"hidden_size": 64, "ffn_hidden_size": 32, "moe_num_experts": 8, "moe_top_k": 2},
    },
    "dots3_note_vision_encoder": {
        "per_layer_config": {}, "mlp_layer_types": ["dense"], "adapter_in_dim": 64, "adapter_out_dim": 64,
    },
    "dots3_note_audio_encoder": {"adapter_input_size": 64, "adapter_out_dim": 64},
    "dots3_note_text": {
        "layer_types": ["indexed_attention", "sliding_attention", "indexed_attention"],
        "mlp_layer_types": ["dense", "sparse", "sparse"], "shared_experts_intermediate_size": 32,
        "per_layer_config": {"1": {"num_attention_heads": 2, "num_key_value_heads": 2}}, "head_dim": 16,
    },
    "qwen4_exp_text": {
        "layer_types": ["linear_attention", "full_attention", "linear_attention"], "indexer_n_heads": 32,
        "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 8, "indexer_compress_ratio": 4,
    },
    "unlimited_ocr_text": {"num_key_value_heads": 4},
    "doge": {"is_moe": True, "num_experts": 16},
    "gemma4_text": {
        "enable_moe_block": True, "top_k_experts": 2, "vocab_size_per_layer_input": 128,
        "hidden_size_per_layer_input": 16,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "longcat_flash": {
        "num_layers": 2, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 32, "zero_expert_num": 4, "head_dim": 8,
    },
    **{
        name: {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
        for name in ("granitemoehybrid", "kimi_linear", "minimax", "qwen3_5_moe_text", "qwen3_next")
    },
    "step3p5": {"mlp_layer_types": ["dense", "sparse", "sparse"]},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip


def tiny_config(model_type: str, **changes: object) -> PretrainedConfig:
    """The architecture's config with every size that it knows made small."""
    return _tiny(CONFIG_MAPPING[model_type], changes)


def _tiny(kind: type[PretrainedConfig], changes: dict[str, object]) -> PretrainedConfig:
    config = kind()
    known = set(config.to_dict())
    sizes: dict[str, object] = {k: v for k, v in SIZES.items() if k in known}
    if "kv_lora_rank" in known:  # compressed attention has as many key heads as heads
        sizes |= {"head_dim": 8, "num_key_value_heads": 4}
    if isinstance(rope := getattr(config, "rope_parameters", None), dict) and "mrope_section" in rope:
        sizes["rope_parameters"] = {**rope, "mrope_section": _sections(rope)}
    for name, its_kind in kind.sub_configs.items():
        part = getattr(config, name, None)
        if isinstance(part, PretrainedConfig):
            sizes[name] = _part(name, part, its_kind).to_dict()
    return kind(**{**sizes, **SPECIAL.get(kind.model_type, {}), **changes})


def _sections(rope: dict[str, object]) -> list[int]:
    """How many of the frequencies of a tiny head belong to time, height and width."""
    half = int(8 * float(str(rope.get("partial_rotary_factor", 1))))
    return [half - 2 * (half // 3), half // 3, half // 3]


def _part(name: str, config: PretrainedConfig, kind: object) -> PretrainedConfig:
    """The config `config` of a part, small. `kind` is what the whole config says that the part is."""
    if name == "text_config" and kind is AutoConfig and not routes(config):
        return tiny_config(OPEN_TEXT)
    if name in TEXT_PARTS:
        return _tiny(type(config), {})
    sizes: dict[str, object] = {key: value for key, value in TOWER.items() if key in config.to_dict()}
    for name, inner in vars(config).items():
        if isinstance(inner, PretrainedConfig):
            sizes[name] = _part(name, inner, None).to_dict()
    return type(config)(**{**sizes, **SPECIAL.get(config.model_type, {})})


def model_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of the whole model with such a config: with towers, if there are some."""
    for mapping in (
        MODEL_FOR_MULTIMODAL_LM_MAPPING,
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    ):
        if type(config) in mapping:
            found: type[PreTrainedModel] = mapping[type(config)]
            return found
    raise KeyError(config.model_type)


def tiny_model(config: PretrainedConfig) -> PreTrainedModel:
    """Random weights, large enough that a wrong expert shows in the logits; vectors are near their initial values."""
    kind = model_class(config)
    count = sum(parameter.numel() for parameter in built_on_meta(kind, config).parameters())
    if count > LARGEST:
        raise ValueError(f"{config.model_type} has {count:,} parameters, which is not tiny")
    torch.manual_seed(1)
    model = kind._from_config(config, dtype=torch.float32).eval()
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.08)
    with torch.no_grad():
        for vector in model.state_dict().values():  # norms, biases, corrections of routers, sinks
            if vector.is_floating_point() and vector.dim() < 2:
                vector.add_(torch.randn_like(vector), alpha=0.1)
    return model


def save_tiny(model_type: str, folder: Path, **changes: object) -> PreTrainedModel:
    """Write a tiny checkpoint with a tokenizer to `folder` and return the model as transformers runs it."""
    model = tiny_model(tiny_config(model_type, **changes))
    model.save_pretrained(folder)
    letters().save_pretrained(folder)
    return model
