from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faasmoe.errors import OptionError
from faasmoe.model.architecture import inspect_architecture, read_config
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.config.facts import ConfigFacts
from tests.tiny import tiny_config


@pytest.mark.parametrize(
    ("config", "facts"),
    [
        ({}, ConfigFacts()),
        ({"num_experts": 60, "max_position_embeddings": 8192}, ConfigFacts(60, 8192)),
        ({"num_local_experts": 8, "num_experts": 4, "n_shared_experts": 99}, ConfigFacts(8)),
        ({"moe_num_experts": [64, 32], "num_experts": "many"}, ConfigFacts(64)),
        (
            {"text_config": {"n_routed_experts": 16, "max_position_embeddings": 32}, "num_experts": 3},
            ConfigFacts(16, 32),
        ),
        ({"max_position_embeddings": 0}, ConfigFacts()),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "longrope", "original_max_position_embeddings": 4096},
            },
            ConfigFacts(None, 4096),
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 4096},
            },
            ConfigFacts(None, 131072),
        ),
    ],
)
def test_only_what_a_config_spells_out_is_known(config: dict[str, Any], facts: ConfigFacts) -> None:
    assert ConfigFacts.of(config) == facts


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\xff", None])
def test_a_config_that_cannot_be_read_has_no_facts(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
    assert ConfigFacts.read(tmp_path) == ConfigFacts()


@pytest.mark.parametrize(
    "name",
    [
        "qwen2_moe",
        "mixtral",
        "olmoe",
        "deepseek_v3",
        "gpt_oss",
        "granitemoe",
        "ernie4_5_moe",
        "phimoe",
        "glm4_moe",
    ],
)
def test_it_never_refuses_what_the_model_takes(name: str, tmp_path: Path) -> None:
    tiny_config(name).save_pretrained(tmp_path)
    architecture = inspect_architecture(read_config(tmp_path))
    most = max(module.num_experts for module in architecture.experts)
    facts = ConfigFacts.read(tmp_path)
    facts.check(most, architecture.context_length, architecture.context_length - 1)
    assert facts.experts in (None, most)


def test_what_such_a_model_cannot_have_is_refused() -> None:
    facts = ConfigFacts.read(resolve(None).folder)
    assert facts == ConfigFacts(60, 2048)
    for asked, said in (
        ({"block_size": 0}, "--block-size 0: must be 1 to 60, the experts of a layer"),
        ({"block_size": 61}, "--block-size 61: must be 1 to 60, the experts of a layer"),
        ({"max_model_len": 1}, "--max-model-len 1: must be 2 to 2048, the model's context"),
        ({"max_model_len": 2049}, "--max-model-len 2049: must be 2 to 2048, the model's context"),
        ({"max_tokens": 2048}, "--max-tokens 2048: must be less than 2048, which is for prompt and answer"),
        ({"max_model_len": 64, "max_tokens": 64}, "--max-tokens 64: must be less than 64"),
    ):
        with pytest.raises(OptionError, match=f"^{said}"):
            facts.check(**asked)
    facts.check(60, 2048, 2047)
