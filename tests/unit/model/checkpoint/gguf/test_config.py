from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.experts.file_state import FileState
from faasmoe.model.checkpoint.gguf.config import config_of, end_tokens_of
from faasmoe.model.checkpoint.gguf.header import GgufHeader, GgufTensor

QWEN = {
    "context_length": 512,
    "embedding_length": 64,
    "block_count": 3,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.key_length": 32,
    "attention.value_length": 32,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.freq_base": 5e5,
    "expert_count": 8,
    "expert_used_count": 2,
    "expert_feed_forward_length": 48,
    "vocab_size": 100,
}


def header(architecture: str, values: dict[str, Any], *tensors: str) -> GgufHeader:
    found = {f"{architecture}.{key}": value for key, value in values.items()}
    metadata = {"general.architecture": architecture, "general.name": "x", **found}
    its = (GgufTensor(name, (100, 64), 0, 0) for name in ("token_embd.weight", *tensors))
    return GgufHeader(Path("a.gguf"), FileState(0, 0, 0, 0), metadata, tuple(its))


def test_keys_become_those_of_the_class() -> None:
    found = config_of(header("qwen3moe", QWEN, "blk.0.attn_q.bias"))
    assert found == {
        "model_type": "qwen3_moe",
        "vocab_size": 100,
        "tie_word_embeddings": True,
        "num_hidden_layers": 3,
        "norm_topk_prob": True,
        "max_position_embeddings": 512,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "attention_bias": True,
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"},
    }
    assert config_of(header("qwen3moe", QWEN, "output.weight"))["tie_word_embeddings"] is False


def test_scaled_rotary_embeddings_are_those_of_the_file() -> None:
    scaling = {
        "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 128,
        "rope.scaling.finetuned": True,
    }  # fmt: skip
    assert config_of(header("qwen3moe", QWEN | scaling))["rope_parameters"] == {
        "rope_theta": 5e5, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
    }  # fmt: skip


def test_layers_that_predict_further_tokens_are_not_counted() -> None:
    more = {"nextn_predict_layers": 1, "expert_gating_func": 2, "rope.dimension_count": 16}
    found = config_of(header("glm4moe", QWEN | more))
    assert found["num_hidden_layers"] == 2
    assert found["rope_parameters"]["partial_rotary_factor"] == 0.5


def test_an_array_in_which_all_layers_agree_is_a_number() -> None:
    same = QWEN | {"attention.head_count_kv": np.array([2, 2, 2])}
    assert config_of(header("qwen3moe", same))["num_key_value_heads"] == 2
    with pytest.raises(UnsupportedModel, match=r"head_count_kv is .*: layers that differ are not served"):
        config_of(header("qwen3moe", same | {"attention.head_count_kv": np.array([2, 1, 2])}))


@pytest.mark.parametrize(
    ("architecture", "changes", "error", "said"),
    [
        ("rwkv7", {}, UnsupportedModel, "architecture rwkv7 are not served; those of qwen2moe, "),
        ("llama", {"expert_count": 0}, UnsupportedModel, "llama is a dense model here, without llama.expert_count"),
        ("qwen3moe", {"attention.scale": 0.1}, UnsupportedModel, "attention.scale is .*: this key is not known"),
        ("qwen3moe", {"attention.value_length": 64}, UnsupportedModel, "value_length is .*: 32 is served"),
        ("qwen3moe", {"expert_gating_func": 2}, UnsupportedModel, "expert_gating_func is .*: 1 is served"),
        ("qwen3moe", {"rope.dimension_count": 16}, UnsupportedModel, "dimension_count is .*: 32 is served"),
        ("qwen3moe", {"rope.scaling.type": "longrope"}, UnsupportedModel, "longrope: none, linear, yarn are served"),
        ("gpt-oss", {"feed_forward_length": 7}, UnsupportedModel, "expert_feed_forward_length is .*intermediate"),
        ("qwen3moe", {"block_count": "3"}, CheckpointError, "block_count is 3: must be a number"),
        ("qwen3moe", {"block_count": None}, CheckpointError, "block_count is None: must be a number above 0"),
        ("qwen3moe", {"embedding_length": ["3"]}, CheckpointError, "embedding_length is .*: must be a number"),
    ],
)  # fmt: skip
def test_what_would_change_the_model_is_refused(
    architecture: str, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        config_of(header(architecture, QWEN | changes))


def test_a_file_without_an_architecture_or_embedding_is_refused() -> None:
    empty = GgufHeader(Path("a.gguf"), FileState(0, 0, 0, 0), {}, ())
    with pytest.raises(CheckpointError, match="names no architecture"):
        config_of(empty)
    metadata = header("qwen3moe", QWEN).metadata
    with pytest.raises(CheckpointError, match=r"holds no tensor token_embd\.weight"):
        config_of(GgufHeader(empty.file, empty.state, metadata, ()))


def test_end_tokens_are_all_that_the_file_names() -> None:
    found = header("qwen3moe", QWEN)
    metadata = {**found.metadata, "tokenizer.ggml.eos_token_id": 9, "tokenizer.ggml.eot_token_id": 4}
    assert end_tokens_of(GgufHeader(found.file, found.state, metadata, found.tensors)) == [4, 9]
