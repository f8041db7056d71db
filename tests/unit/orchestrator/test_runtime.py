from __future__ import annotations

import os
from pathlib import Path

from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.orchestrator.loaded_model import LoadedModel
from faasmoe.orchestrator.runtime import demand
from tests.tiny import save_tiny


def test_a_pool_must_hold_a_functions_tensors_and_an_orchestrator_the_dense_ones(tmp_path: Path) -> None:
    save_tiny("qwen2_moe", tmp_path / "model")
    plan = make_plan(resolve(str(tmp_path / "model")), 3)
    asked = demand(plan, orchestrators=2, requests=7)
    assert asked.functions == len(plan.blocks)
    assert asked.function_tensors == 3 * 3  # experts and their matrices
    assert (asked.clients, asked.requests) == (2, 7)
    before = len(os.listdir("/proc/self/fd"))
    loaded = LoadedModel(plan, tmp_path / "artifacts")
    assert 0 < len(os.listdir("/proc/self/fd")) - before <= asked.client_tensors
    assert len(loaded.functions) == asked.functions
