from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, LlamaConfig, PretrainedConfig

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.model.architecture import inspect_architecture, read_config
from tests.tiny import tiny_config


def test_geometry() -> None:
    found = inspect_architecture(tiny_config("deepseek_v3"))
    assert [e.layer for e in found.experts] == [1, 2]  # the first layer is dense
    assert {(e.num_experts, e.hidden_size) for e in found.experts} == {(8, 64)}
    assert found.context_length == 256


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            LlamaConfig(num_hidden_layers=1, hidden_size=32, vocab_size=64),
            "^llama is a dense model: LlamaForCausalLM has no routed experts",
        ),
        (tiny_config("dbrx"), "^dbrx is not a Mixture-of-Experts model that transformers dispatches"),
        (tiny_config("mixtral", quantization_config={"quant_method": "bnb"}), "mixtral.*quantized with bnb"),
        (PretrainedConfig(), "no causal language model"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(config: PretrainedConfig, said: str) -> None:
    with pytest.raises(UnsupportedModel, match=said):
        inspect_architecture(config)


class Allocated(TorchDispatchMode):
    """The bytes of the largest tensor that is made on the CPU."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self.largest = max(self.largest, tensor.nbytes)
        return out


@pytest.mark.parametrize("name", ["llama4_text", "deepseek_v3", "gpt_oss", "ernie4_5_moe", "qwen2_moe"])
def test_a_model_takes_no_memory_however_its_class_makes_its_weights(name: str) -> None:
    """Llama 4 makes its experts by `torch.zeros`, DeepSeek its routers, as others do."""
    wide = {"hidden_size": 1024, "intermediate_size": 2048, "num_local_experts": 64, "n_routed_experts": 64,
            "num_experts": 64, "moe_num_experts": 64}  # fmt: skip
    known = {key: value for key, value in wide.items() if key in AutoConfig.for_model(name).to_dict()}
    with Allocated() as allocated, suppress(UnsupportedModel):
        inspect_architecture(tiny_config(name, **known))
    assert allocated.largest < 1 << 20  # its weights have hundreds of megabytes


def test_a_newer_architecture_is_told_with_all_versions(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen9_moe", "transformers_version": "9.1.0"}))
    with pytest.raises(UnsupportedModel) as caught:
        read_config(tmp_path)
    said = str(caught.value)
    assert f"the installed transformers {transformers.__version__} does not know the architecture" in said
    assert "(model_type) qwen9_moe, so FaaSMoE" in said
    assert "written by transformers 9.1.0" in said


def test_rotary_embeddings_that_change_with_length_limit_the_context() -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "long_factor": [1.0] * 8,
        "short_factor": [1.0] * 8,
        "original_max_position_embeddings": 100,
    }
    config = tiny_config("qwen2_moe", rope_parameters=rope)
    assert inspect_architecture(config).context_length == 100


def test_what_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        read_config(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_type"}))
    with pytest.raises(UnsupportedModel, match=r"does not know the architecture .* no_such_type"):
        read_config(tmp_path)


def test_a_config_of_several_language_models_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="musicgen: which part of it is the language model is not clear"):
        inspect_architecture(
            AutoConfig.for_model(
                "musicgen",
                text_encoder={"model_type": "t5"},
                audio_encoder={"model_type": "encodec"},
                decoder={"model_type": "musicgen_decoder"},
            )
        )
