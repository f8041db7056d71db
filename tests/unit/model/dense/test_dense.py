"""What a model of transformers has in place of its own layers once it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.masking_utils import create_causal_mask

from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.dense.linear.linears import StepLinear
from faasmoe.model.dense.norms import StepNorm
from faasmoe.model.dense.overlap import Overlapped
from faasmoe.model.dense.rotary import Rotary
from faasmoe.model.plan import make_plan
from tests.tiny import save_tiny


@pytest.mark.parametrize(
    ("model_type", "bias"),
    [("minimax_m2", "e_score_correction_bias"), ("afmoe", "expert_bias"), ("laguna", "e_score_correction_bias")],
)
def test_biases_that_choose_experts_stay_as_published(model_type: str, bias: str, tmp_path: Path) -> None:
    save_tiny(model_type, tmp_path)
    published = {
        name: its for name, its in load_file(tmp_path / "model.safetensors").items() if name.endswith(bias)
    }
    assert published
    plan = make_plan(resolve(str(tmp_path)), 3, "bfloat16")
    model = DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype)._model
    loaded = {name: its for name, its in model.state_dict().items() if name.endswith(bias)}
    assert len(loaded) == len(published)
    for its, wanted in zip(loaded.values(), published.values(), strict=True):
        assert its.dtype == torch.float32
        assert torch.equal(its, wanted)
        assert not torch.equal(its, wanted.bfloat16().float())


@pytest.mark.parametrize("model_type", ["qwen2_moe", "glm4_moe"])
def test_the_layers_that_we_compute_are_ours(model_type: str, tmp_path: Path) -> None:
    """Nothing fails if one is not recognised any more: the model is only slower."""
    save_tiny(model_type, tmp_path)
    plan = make_plan(resolve(str(tmp_path)), 3, "bfloat16")
    model = DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype)._model
    assert create_causal_mask(model.config, torch.zeros(1, 3, 8), None, None) is None
    layer = model.get_submodule("model.layers.1")
    attention = layer.get_submodule("self_attn")
    kinds = {name: type(module) for name, module in model.named_modules()}
    assert {kinds[f"model.layers.1.self_attn.{part}_proj"] for part in "qkvo"} == {StepLinear}
    assert kinds["lm_head"] is StepLinear
    assert {kinds[name] for name in kinds if name.endswith("norm")} == {StepNorm}
    called = attention.forward.__func__.__globals__  # type: ignore[union-attr]
    assert isinstance(called["apply_rotary_pos_emb"], Rotary)
    (shared,) = (module for module in layer.modules() if isinstance(module, Overlapped))
    assert shared._first is not None  # the probe has told when it is called
    assert not [
        name for name, module in shared.named_modules() if type(module) is nn.Linear and "gate" not in name
    ]
