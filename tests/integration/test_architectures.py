"""Every architecture of transformers that dispatches its experts is served right, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from faasmoe.errors import UnsupportedModel
from faasmoe.model.architecture import inspect_architecture
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.rehearsal import rehearse
from faasmoe.model.plan import make_plan
from tests.integration.tiny_models import NAMED, TOLERANCE, load_model, worst_difference
from tests.platforms import InProcessPlatform
from tests.tiny import save_tiny, tiny_config


def dispatched_types() -> list[str]:
    """Every causal language model of transformers whose module mentions the registry of experts."""
    models = Path(transformers.__file__).parent / "models"
    found = []
    for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        module = model_type_to_module_name(name)
        text = models / module / f"modeling_{module}.py"  # to import them all takes longer than to test them
        if text.exists() and "use_experts_implementation" in text.read_text():
            found.append(name)
    return found


@pytest.mark.parametrize("model_type", [name for name in dispatched_types() if name not in NAMED])
def test_any_other_architecture_works_or_is_refused_by_name(model_type: str, tmp_path: Path) -> None:
    try:
        config = tiny_config(model_type)
    except Exception as error:  # noqa: BLE001 - such configs need sizes that the tiny ones lack
        pytest.skip(f"{model_type}: no tiny config: {str(error).splitlines()[0]}")
    try:
        rehearse(inspect_architecture(config), torch.float32)
    except UnsupportedModel as refusal:
        assert model_type in str(refusal)  # noqa: PT017 - either outcome is right
        return
    reference = save_tiny(model_type, tmp_path)
    model = load_model(make_plan(resolve(str(tmp_path)), 3), InProcessPlatform(), tmp_path / "artifacts")
    assert worst_difference(model, reference, steps=3) < TOLERANCE


def test_many_architectures_are_served() -> None:
    """So that a change cannot make everything 'refused by name' unnoticed."""
    served = 0
    for model_type in dispatched_types():
        try:
            rehearse(inspect_architecture(tiny_config(model_type)), torch.float32)
        except Exception:  # noqa: BLE001 - counted by what is left
            continue
        served += 1
    assert served >= 43
