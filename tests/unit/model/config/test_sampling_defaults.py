from __future__ import annotations

import json
from pathlib import Path

import pytest

from faasmoe.errors import CheckpointError
from faasmoe.model.config.generation import sampling_defaults


def test_the_values_of_sampling_are_read(tmp_path: Path) -> None:
    assert sampling_defaults(tmp_path) == {}
    given = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "do_sample": True, "eos_token_id": 1, "min_p": None}
    (tmp_path / "generation_config.json").write_text(json.dumps(given))
    assert sampling_defaults(tmp_path) == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}


@pytest.mark.parametrize("wrong", [{"temperature": "hot"}, {"top_p": 2}, {"repetition_penalty": True}])
def test_a_value_that_no_request_could_have_is_refused(tmp_path: Path, wrong: dict) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(wrong))
    with pytest.raises(CheckpointError, match="must be a number from"):
        sampling_defaults(tmp_path)
