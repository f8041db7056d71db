from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from faasmoe.errors import OptionError, UnsupportedModel
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.config.facts import ConfigFacts
from faasmoe.model.config.rope import RopeScaling
from faasmoe.model.plan import context_length, make_plan
from tests.tiny import save_tiny
from tests.unit.model.serving import TOKENS, computed, reference

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
LINEAR = {"type": "linear", "factor": 4}


@pytest.mark.parametrize("scaling", [YARN, YARN | {"beta_fast": 16.0}, LINEAR], ids=["yarn", "beta", "linear"])
def test_a_longer_context_is_that_of_a_config_that_people_edit(scaling: dict[str, Any], tmp_path: Path) -> None:
    """The 24 tokens are more than the 8 that the config allows without the option."""
    folder, edited = tmp_path / "model", tmp_path / "edited"
    for place in (folder, edited):
        save_tiny("qwen3_moe", place, max_position_embeddings=8)
    config = json.loads((edited / "config.json").read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    settings = {"rope_theta": theta, **{("rope_type" if k == "type" else k): v for k, v in scaling.items()}}
    changes = {"rope_parameters": settings, "max_position_embeddings": 32}
    (edited / "config.json").write_text(json.dumps(config | changes))
    plan = make_plan(resolve(str(folder)), 3, "float32", rope_scaling=json.dumps(scaling))
    assert context_length(plan, None) == 32
    _, got = computed(plan, tmp_path / "artifacts")
    assert (got - reference(edited)).abs().max() < 1e-4
    assert (got - reference(folder)).abs().max() > 1e-3
    assert len(TOKENS) > 8


def test_options_are_checked_against_the_scaled_context(tmp_path: Path) -> None:
    save_tiny("qwen3_moe", tmp_path, max_position_embeddings=64)
    scaling = RopeScaling.parse(json.dumps(YARN | {"original_max_position_embeddings": 32}))
    assert ConfigFacts.read(tmp_path, scaling).context == 128
    ConfigFacts.read(tmp_path, scaling).check(max_model_len=128)
    with pytest.raises(OptionError, match="--max-model-len 129: must be 2 to 128"):
        ConfigFacts.read(tmp_path, scaling).check(max_model_len=129)


def test_partial_rotary_embeddings_stay_partial(tmp_path: Path) -> None:
    save_tiny("glm4_moe", tmp_path)
    plan = make_plan(resolve(str(tmp_path)), rope_scaling=json.dumps(LINEAR))
    found = plan.architecture.text_config.rope_parameters
    assert (found["partial_rotary_factor"], found["factor"], found["rope_type"]) == (0.5, 4, "linear")
    assert plan.architecture.context_length == 1024


def test_several_rotary_embeddings_are_not_scaled(tmp_path: Path) -> None:
    save_tiny("gemma4_text", tmp_path)
    with pytest.raises(
        UnsupportedModel, match=r"--rope-scaling is for models with one rotary .* config has several"
    ):
        make_plan(resolve(str(tmp_path)), rope_scaling=json.dumps(LINEAR))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be a JSON object with rope_type and factor"),
        ('{"factor": 2}', "rope_type is None: must be linear or yarn"),
        ('{"rope_type": "dynamic", "factor": 2}', "rope_type is dynamic: must be linear or yarn"),
        ('{"rope_type": "yarn", "factor": "4"}', "factor is 4: must be a number above 0"),
        ('{"rope_type": "yarn", "factor": 0.5}', r"factor is 0\.5: must be 1 or more"),
        ('{"rope_type": "yarn"}', "factor is None: must be 1 or more"),
        ('{"rope_type": "linear", "factor": 2, "beta_fast": 1}', "linear has no beta_fast"),
        (
            '{"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": -1}',
            "embeddings is -1: must be a n",
        ),
        ('{"rope_type": ["yarn"], "factor": 2}', "rope_type is .*: must be linear or yarn"),
    ],
)
def test_what_is_no_scaling_is_refused(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=f"--rope-scaling.*{said}"):
        RopeScaling.parse(text)


def test_transformers_takes_what_is_made_of_the_option(tmp_path: Path) -> None:
    save_tiny("olmoe", tmp_path)
    plan = make_plan(resolve(str(tmp_path)), rope_scaling=json.dumps(YARN | {"truncate": False}))
    assert plan.architecture.text_config.rope_parameters["truncate"] is False
    assert plan.dtype == torch.float32
