"""Models that also see or hear, served as text, and experts that transformers does not dispatch by its registry."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.models import checked

from faasmoe.errors import UnsupportedModel
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from tests.tiny import save_tiny


@pytest.mark.parametrize("model_type", ["qwen3_vl_moe", "glm4v_moe", "mistral3", "aria"])
def test_text_goes_through_models_that_also_see_or_hear(model_type: str, tmp_path: Path) -> None:
    """As in transformers, with images left out: logits, greedy tokens, chunks, preemption, a prefix reused."""
    reference = save_tiny(model_type, tmp_path / "model")
    assert float(checked(reference, tmp_path).partition(",")[0]) < 1e-4
    plan = make_plan(resolve(str(tmp_path / "model")), 3)
    assert plan.architecture.part.absent  # towers, of which nothing is loaded
    assert not [name for name in plan.layout.dense if plan.architecture.part.leaves_out(name)]


@pytest.mark.parametrize("model_type", ["llama4_text", "longcat_flash", "jetmoe"])
def test_experts_that_no_registry_dispatches_are_served(model_type: str, tmp_path: Path) -> None:
    reference = save_tiny(model_type, tmp_path / "model")
    assert float(checked(reference, tmp_path).partition(",")[0]) < 1e-4


def test_experts_without_an_adapter_are_refused_by_name(tmp_path: Path) -> None:
    save_tiny("doge", tmp_path / "model")
    with pytest.raises(UnsupportedModel, match="doge"):
        make_plan(resolve(str(tmp_path / "model")), 3)
