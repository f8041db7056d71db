from __future__ import annotations

import math

import pytest

from faasmoe.errors import OptionError
from faasmoe.protocol.config import FleetOptions
from faasmoe.protocol.options import EngineOptions


@pytest.mark.parametrize("name", ["kv_cache_bytes", "max_step_tokens", "max_sequences", "max_waiting"])
def test_an_option_that_leaves_nothing_is_refused_by_name(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} is 0"):
        EngineOptions(**{name: 0})
    assert getattr(EngineOptions(**{name: 1}), name) == 1


@pytest.mark.parametrize("value", [-1, 2**63, math.nan, math.inf])
def test_an_option_that_is_no_count_is_refused(value: float) -> None:
    with pytest.raises(OptionError, match=f"max_sequences is {value}: must be 1 to"):
        EngineOptions(max_sequences=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"), [("keep_alive", -1), ("keep_alive", math.nan), ("most", 0), ("most", 1001)]
)
def test_fleets_are_refused_as_well(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"{value}: must be"):
        FleetOptions("private", **{name: value})  # type: ignore[arg-type]
