"""A model served in eight bits or four computes what these bits stand for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from faasmoe.engine.experts.dispatch import Dispatch, write_functions
from faasmoe.experts import PRELOAD
from faasmoe.experts.formats.base import MatrixLocation
from faasmoe.model.adapter.experts import is_experts
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.attention import Span
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.plan import ModelPlan, make_plan
from faasmoe.model.tensors import as_tensor
from faasmoe.platforms.base import Platform
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.registry import start
from tests.memory import mapped_bytes
from tests.platforms import InProcessPlatform
from tests.tiny import save_tiny

PROMPTS = torch.randint(3, 128, (4, 40), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.fixture(scope="module")
def platform() -> Iterator[LocalPlatform]:
    with start("local", PRELOAD) as running:
        yield running


def prepared(model: str | None, block_size: int, quantize: str) -> ModelPlan:
    plan = make_plan(resolve(model), block_size, quantize=quantize)
    assert plan.quantised is not None
    plan.quantised.make()
    return plan


def load(plan: ModelPlan, platform: Platform, folder: Path) -> DenseModel:
    platform.deploy(write_functions(plan.blocks, folder))
    model = DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype, plan.linears)
    model.start(Dispatch(platform, plan.blocks), threads=1)
    return model


def exact(location: MatrixLocation) -> torch.Tensor:
    """The numbers that the eight bits stand for."""
    return as_tensor(location.map().exact())


def reference(plan: ModelPlan) -> PreTrainedModel:
    """transformers' own model in float32, with the numbers that the few bits stand for as its weights."""
    model = AutoModelForCausalLM.from_pretrained(plan.source.folder, dtype=torch.float32).eval()
    model.set_experts_implementation("eager")
    for name, location in plan.linears.items():
        model.get_submodule(name).weight = nn.Parameter(exact(location), requires_grad=False)
    experts = {e.layer: (model.get_submodule(e.name), e.form.transposed) for e in plan.architecture.experts}
    for block in plan.blocks:
        module, transposed = experts[block.artifact.layer]
        assert is_experts(module)
        first = module.gate_up_proj if hasattr(module, "gate_up_proj") else module.up_proj
        for number, places in zip(block.artifact.experts, block.artifact.weights, strict=True):
            whole = torch.cat([exact(place) for place in places.first])
            down = exact(places.down)
            first.data[number] = whole.t() if transposed else whole
            module.down_proj.data[number] = down.t() if transposed else down
    return model


@torch.inference_mode()
def assert_errs_little(model: DenseModel, exact: PreTrainedModel, most: float) -> None:
    """Against float32 the served model errs at most so many times as much as transformers' own forward in bfloat16.

    Medians, because in bfloat16 a token whose experts are a near tie may get another one, in either of the two.
    """
    wanted = exact(torch.tensor(PROMPTS)).logits
    accepted = (exact.bfloat16()(torch.tensor(PROMPTS)).logits.float() - wanted).abs().median()
    count, at_once = len(PROMPTS[0]), len(PROMPTS[0]) - 3
    whole, stepwise = [], []
    for tokens in PROMPTS:
        every = list(range(count))
        state, again = model.state_spec.allocate(), model.state_spec.allocate()
        state.reserve(count)
        again.reserve(count)
        whole.append(model.forward(tokens, every, [Span(state, count)], every))
        model.forward(tokens[:at_once], every[:at_once], [Span(again, at_once)], [0])
        stepwise += [model.forward([tokens[at]], [at], [Span(again, 1)], [0]) for at in every[at_once:]]
    assert (torch.stack(whole) - wanted).abs().median() < 1.2 * most * accepted
    assert (torch.cat(stepwise) - wanted[:, at_once:].flatten(0, 1)).abs().median() < 1.5 * most * accepted


MOST = {"int8": 1.0, "int4": 3.0}  # rows that meet int4 are rounded to eight bits


@pytest.mark.parametrize(("block_size", "quantize"), [(10, "int8"), (60, "int8"), (10, "int4")])
def test_the_demo_model_through_real_functions(
    platform: LocalPlatform, tmp_path: Path, block_size: int, quantize: str
) -> None:
    platform.remove([status.name for status in platform.status().functions])
    plan = prepared(None, block_size, quantize)
    model = load(plan, platform, tmp_path)
    places = [place for block in plan.blocks for expert in block.artifact.weights for place in expert]
    assert_errs_little(model, reference(plan), MOST[quantize])
    assert mapped_bytes(os.getpid(), places) == 0  # only instances have experts
    counted = {status.name: status.memory for status in platform.status().functions}
    beside = {counted[block.name] - block.artifact.memory for block in plan.blocks}
    assert len(beside) == 1  # what a process takes, the same for all
    most = {"int8": 0.56, "int4": 0.32}[quantize]
    assert plan.function_bytes < most * make_plan(resolve(None), block_size).function_bytes


@pytest.mark.parametrize("name", ["gpt_oss", "mixtral", "deepseek_v3", "qwen3_moe", "granitemoe"])
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_other_forms_of_experts(name: str, quantize: str, tmp_path: Path) -> None:
    """Transposed, interleaved and biased ones, compressed attention, other routers."""
    save_tiny(name, tmp_path / "model", intermediate_size=64)
    plan = prepared(str(tmp_path / "model"), 3, quantize)
    model = load(plan, InProcessPlatform(), tmp_path / "artifacts")
    assert_errs_little(model, reference(plan), MOST[quantize])
