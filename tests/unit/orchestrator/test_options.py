from __future__ import annotations

import pytest

from faasmoe.errors import OptionError
from faasmoe.orchestrator.options import EngineOptions


@pytest.mark.parametrize("name", ["kv_cache_bytes", "max_step_tokens", "max_sequences", "max_waiting"])
def test_an_option_that_leaves_nothing_is_refused_by_name(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} is 0"):
        EngineOptions(**{name: 0})
    assert getattr(EngineOptions(**{name: 1}), name) == 1
