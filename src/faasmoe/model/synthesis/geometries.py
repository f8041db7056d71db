"""Published geometries of MoE models, for checkpoints of random weights.

Each is what the model's own config.json on the Hugging Face hub says, where it differs from the defaults of
transformers' config class; the hub id is beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faasmoe.errors import OptionError
from faasmoe.model.checkpoint.source import is_hub_id, resolve
from faasmoe.model.config.facts import ConfigFacts

LEAST_VOCAB, MOST_VOCAB = 257, 1 << 24  # the least: all bytes and the end token

GEOMETRIES: dict[str, dict[str, Any]] = {
    "qwen1.5-moe-a2.7b": {  # Qwen/Qwen1.5-MoE-A2.7B
        "model_type": "qwen2_moe",
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 8192,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "norm_topk_prob": False,
        "rope_theta": 1000000.0,
    },
    "olmoe-1b-7b": {  # allenai/OLMoE-1B-7B-0924
        "model_type": "olmoe",
        "vocab_size": 50304,
        "hidden_size": 2048,
        "intermediate_size": 1024,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 4096,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "rope_theta": 10000.0,
    },
    "mixtral-8x7b": {  # mistralai/Mixtral-8x7B-v0.1
        "model_type": "mixtral",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rope_theta": 1000000.0,
    },
    "qwen3-30b-a3b": {  # Qwen/Qwen3-30B-A3B
        "model_type": "qwen3_moe",
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "rope_theta": 1000000.0,
    },
    "qwen3.6-35b-a3b": {  # Qwen/Qwen3.6-35B-A3B, its language model
        "model_type": "qwen3_5_moe_text",
        "vocab_size": 248320,
        "hidden_size": 2048,
        "num_hidden_layers": 40,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 262144,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25},
    },
    "deepseek-v2-lite": {  # deepseek-ai/DeepSeek-V2-Lite
        "model_type": "deepseek_v2",
        "vocab_size": 102400,
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 163840,
        "n_routed_experts": 64,
        "num_experts_per_tok": 6,
        "moe_intermediate_size": 1408,
        "n_shared_experts": 2,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 512,
        "q_lora_rank": None,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "topk_method": "greedy",
        "routed_scaling_factor": 1.0,
    },
    "deepseek-v3": {  # deepseek-ai/DeepSeek-V3, without YaRN
        "model_type": "deepseek_v3",
        "vocab_size": 129280,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "max_position_embeddings": 4096,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048,
        "n_shared_experts": 1,
        "first_k_dense_replace": 3,
        "n_group": 8,
        "topk_group": 4,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "rope_theta": 10000.0,
    },
    "glm-4.7-flash": {  # zai-org/GLM-4.7-Flash
        "model_type": "glm4_moe_lite",
        "vocab_size": 154880,
        "hidden_size": 2048,
        "intermediate_size": 10240,
        "num_hidden_layers": 47,
        "num_attention_heads": 20,
        "num_key_value_heads": 20,
        "max_position_embeddings": 202752,
        "n_routed_experts": 64,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1536,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "kv_lora_rank": 512,
        "q_lora_rank": 768,
        "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64,
        "v_head_dim": 256,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.8,
        "rope_theta": 1000000.0,
    },
    "gpt-oss-20b": {  # openai/gpt-oss-20b
        "model_type": "gpt_oss",
        "vocab_size": 201088,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": 24,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
    },
}
# deepseek-ai/DeepSeek-V3.2, without YaRN
GEOMETRIES["deepseek-v3.2"] = GEOMETRIES["deepseek-v3"] | {
    "model_type": "deepseek_v32",
    "index_topk": 2048,
    "index_n_heads": 64,
    "index_head_dim": 128,
}


PUBLISHED = {"deepseek-v3": "fp8", "deepseek-v3.2": "fp8", "gpt-oss-20b": "mxfp4"}
"""The weight formats of those that are not published in bfloat16."""


def sizes_of(name: str, layers: int | None = None, vocab: int | None = None) -> dict[str, Any]:
    """The config of a geometry, with so many layers and tokens. Raises `OptionError` if it cannot have them."""
    if name not in GEOMETRIES:
        raise OptionError(f"{name}: no such geometry; there are {', '.join(GEOMETRIES)}")
    sizes = dict(GEOMETRIES[name])
    if layers is not None:
        _check("--layers", layers, 1, sizes["num_hidden_layers"])
        sizes["num_hidden_layers"] = layers
    if vocab is not None:
        _check("--vocab", vocab, LEAST_VOCAB, MOST_VOCAB)
        sizes["vocab_size"] = vocab
    return sizes


def is_geometry(model: str) -> bool:
    """Whether `model` names a published geometry and no folder."""
    return model in GEOMETRIES and not Path(model).is_dir()


def facts_of(model: str | None, layers: int | None = None) -> ConfigFacts:
    """Sizes of a geometry, of which `layers` are taken, or of a folder; none of a hub id.

    Raises `OptionError`, or `CheckpointError` if there is no such folder.
    """
    if model is not None and is_geometry(model):
        return ConfigFacts.of(sizes_of(model, layers))
    if layers is not None:
        raise OptionError(f"--layers {layers}: is for published geometries only: {', '.join(GEOMETRIES)}")
    return ConfigFacts() if is_hub_id(model) else ConfigFacts.read(resolve(model).folder)


def _check(option: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise OptionError(f"{option} {value}: must be {least} to {most}")
