"""The architectures of GGUF files that are served: what their metadata are in configs of transformers.

llama.cpp's `convert_hf_to_gguf.py` writes the metadata (its keys are in `gguf.constants`), and its `src/models` say
what is not written because its code knows it: those values are in `fixed`. Without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

SOFTMAX, SIGMOID = 1, 2  # expert_gating_func

_COMMON = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "feed_forward_length": "intermediate_size",
    "expert_used_count": "num_experts_per_tok",
}
_QWEN = {"expert_count": "num_experts", "expert_feed_forward_length": "moe_intermediate_size"}
_DEEPSEEK = {  # routers that pick by sigmoid with a bias, after dense layers
    "expert_count": "n_routed_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "leading_dense_block_count": "first_k_dense_replace",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": "norm_topk_prob",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
}


@dataclass(frozen=True)
class GgufArchitecture:
    """An architecture by its name in `general.architecture`."""

    model_type: str  # of transformers
    own: Mapping[
        str, str
    ]  # keys of the metadata beside `_COMMON`, without the architecture, to keys of the config
    fixed: Mapping[str, Any] = field(default_factory=dict)  # of the config
    gating: int = SOFTMAX  # how routers make weights of logits
    rotary: str = ""  # the config's key for the part of a head, or the dimensions of it, that is turned
    biased: str = ""  # the config's key for biases of query, key and value
    normed: str = ""  # the config's key for norms of query and key
    permuted: bool = False  # rows of query and key are in the order of Meta's rotary embeddings

    @property
    def keys(self) -> Mapping[str, str]:
        """Keys of the metadata, without the architecture, to keys of the config."""
        return _COMMON | dict(self.own)


ARCHITECTURES: Mapping[str, GgufArchitecture] = MappingProxyType(
    {
        "qwen2moe": GgufArchitecture(
            "qwen2_moe",
            {**_QWEN, "expert_shared_feed_forward_length": "shared_expert_intermediate_size"},
            {"norm_topk_prob": False},
            biased="qkv_bias",
        ),
        "qwen3moe": GgufArchitecture("qwen3_moe", _QWEN, {"norm_topk_prob": True}, biased="attention_bias"),
        "gpt-oss": GgufArchitecture(
            "gpt_oss",
            {
                "expert_count": "num_local_experts",
                "expert_feed_forward_length": "intermediate_size",
                "attention.sliding_window": "sliding_window",
            },
            biased="attention_bias",
        ),
        "llama": GgufArchitecture("mixtral", {"expert_count": "num_local_experts"}, permuted=True),
        "olmoe": GgufArchitecture(
            "olmoe",
            {"expert_count": "num_experts", "attention.clamp_kqv": "clip_qkv"},
            {"norm_topk_prob": False},
        ),
        "glm4moe": GgufArchitecture(
            "glm4_moe",
            _DEEPSEEK,
            gating=SIGMOID,
            rotary="partial_rotary_factor",
            biased="attention_bias",
            normed="use_qk_norm",
        ),
        "dots1": GgufArchitecture("dots1", _DEEPSEEK, gating=SIGMOID),
        "minimax-m2": GgufArchitecture(
            "minimax_m2",
            {"expert_count": "num_local_experts", "expert_feed_forward_length": "intermediate_size"},
            gating=SIGMOID,
            rotary="rotary_dim",
        ),
    }
)


def architecture_for(model_type: str) -> tuple[str, GgufArchitecture]:
    """The architecture that becomes a model type of transformers, with its name in GGUF files."""
    return next((name, found) for name, found in ARCHITECTURES.items() if found.model_type == model_type)
