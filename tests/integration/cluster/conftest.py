"""What tests of clusters share: a tiny model, and what it computes on one machine."""

from __future__ import annotations

import pytest
import torch

from faasmoe.engine.experts.dispatch import write_functions
from faasmoe.experts import PRELOAD
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import ModelPlan, make_plan
from faasmoe.platforms import registry
from tests.integration.cluster.generation import logits
from tests.tiny import save_tiny


@pytest.fixture(scope="package")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ModelPlan:
    folder = tmp_path_factory.mktemp("model")
    save_tiny("qwen2_moe", folder)
    return make_plan(resolve(str(folder)), 2, "float32")


@pytest.fixture(scope="package")
def reference(plan: ModelPlan, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """The logits of all steps on one machine."""
    with registry.start("local", PRELOAD) as platform:
        platform.deploy(write_functions(plan.blocks, tmp_path_factory.mktemp("artifacts")))
        return logits(plan, platform)
