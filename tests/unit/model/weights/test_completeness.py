"""Tensors that a model lacks, and those that it has no place for: refused by name before weights are loaded."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from faasmoe.errors import CheckpointError
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import ModelPlan, make_plan
from tests.tiny import save_tiny

SHARD = "model.safetensors"
ATTENTION = "model.layers.0.self_attn.q_proj"
EXPERT = "model.layers.1.mlp.experts.3.up_proj"
Change = Callable[[dict[str, Tensor]], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folders = {tied: tmp_path_factory.mktemp("sound") for tied in (False, True)}
    for tied, folder in folders.items():
        save_tiny("olmoe", folder, tie_word_embeddings=tied)
    return folders


@pytest.fixture
def folder(sound: dict[bool, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound[False], tmp_path / "model"))


def planned(folder: Path, change: Change) -> ModelPlan:
    tensors = load_file(folder / SHARD)
    change(tensors)
    save_file(tensors, folder / SHARD, {"format": "pt"})
    return make_plan(resolve(str(folder)))


def added(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Change:
    return lambda tensors: tensors.update({name: torch.ones(shape, dtype=dtype)})


@pytest.mark.parametrize(
    "name",
    [
        f"{ATTENTION}.weight_scale_inv",
        f"{ATTENTION}.weight_scale",
        f"{ATTENTION}.input_scale",
        f"{ATTENTION}.qzeros",
        f"{ATTENTION}.weight.absmax",
        "model.layers.0.self_attn.k_scale",
        f"{EXPERT}.weight_scale_inv",
        f"{EXPERT}.scales",
        "model.layers.1.mlp.experts.gate_up_proj_scales",
        "lm_head.weight_scale",
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_scales_that_no_config_declares_are_refused_by_name(folder: Path, name: str, dtype: torch.dtype) -> None:
    with pytest.raises(CheckpointError, match=rf"{SHARD}: tensor {name} belongs to quantized weights") as caught:
        planned(folder, added(name, 4, dtype=dtype))
    assert "quantization_config" in str(caught.value)


def test_weights_in_eight_bits_are_refused_as_quantized(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"q_proj\.weight has the dtype F8_E4M3.*no quantization"):
        planned(
            folder,
            lambda found: found.update(
                {f"{ATTENTION}.weight": found[f"{ATTENTION}.weight"].to(torch.float8_e4m3fn)}
            ),
        )


@pytest.mark.parametrize(
    "name", [f"{ATTENTION}.bias", f"{EXPERT}.bias", "model.norm.bias", "model.layers.1.mlp.gate.bias"]
)
def test_a_weight_that_the_config_does_not_know_of_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{SHARD}: tensor {name} has no place in olmoe with this config"):
        planned(folder, added(name, 64))


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.embeddings.position_ids",
        "position_ids",
    ],
)
def test_buffers_of_older_versions_may_be_there(folder: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert name not in planned(folder, added(name, 8)).layout.dense
    assert not caplog.text


def test_modules_that_the_model_does_not_have_are_told_and_not_loaded(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = make_plan(resolve(str(folder))).dense_bytes
    with caplog.at_level(logging.WARNING):
        plan = planned(folder, lambda found: [added(f"vision.{i}.weight", 1000)(found) for i in range(3)])
    assert "3 tensors belong to no part of olmoe and are not used, the first is vision.0.weight" in caplog.text
    assert plan.dense_bytes == before


def test_layers_that_the_config_leaves_out_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with caplog.at_level(logging.WARNING):
        make_plan(resolve(str(folder)))
    assert "the first is model.layers.2." in caplog.text


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "lm_head.weight", f"{ATTENTION}.weight", "model.layers.1.mlp.gate.weight"]
)
def test_a_missing_weight_of_the_dense_part_is_named(folder: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"lacks 1 tensors of the dense part, the first is {name}$"):
        planned(folder, lambda found: found.pop(name))


def test_tied_weights_are_stored_once(sound: dict[bool, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound[True], tmp_path / "model"))
    assert "lm_head.weight" not in load_file(folder / SHARD)
    make_plan(resolve(str(folder)))
    with pytest.raises(CheckpointError, match="lacks 2 tensors of the dense part"):
        planned(folder, lambda found: found.pop("model.embed_tokens.weight"))


@pytest.mark.parametrize(
    ("model_type", "layer"),
    [
        ("deepseek_v3", "model.layers.{last}"),
        ("glm4_moe", "model.layers.{last}"),
        ("qwen3_next", "mtp.layers.0"),
    ],
)
def test_layers_that_predict_further_tokens_are_neither_dense_nor_served(
    tmp_path: Path, model_type: str, layer: str
) -> None:
    """Models publish them behind their own layers, for speculation, which transformers leaves out, too."""
    save_tiny(model_type, tmp_path)
    before = make_plan(resolve(str(tmp_path)))
    layer = layer.format(last=before.architecture.text_config.num_hidden_layers)
    hidden, experts = before.architecture.text_config.hidden_size, before.architecture.experts[0].num_experts
    tensors = load_file(tmp_path / SHARD)
    further = {
        f"{layer}.eh_proj.weight": torch.ones(hidden, 2 * hidden),
        f"{layer}.enorm.weight": torch.ones(hidden),
        f"{layer}.input_layernorm.weight": torch.ones(hidden),
        **{f"{layer}.mlp.experts.{e}.up_proj.weight": torch.ones(16, hidden) for e in range(experts)},
    }
    save_file(tensors | further, tmp_path / SHARD, {"format": "pt"})
    after = make_plan(resolve(str(tmp_path)))
    assert after.dense_bytes == before.dense_bytes
    assert [block.name for block in after.blocks] == [block.name for block in before.blocks]
    assert len(after.checkpoint) == len(before.checkpoint) + len(further)
