"""Options that are out of range."""

from __future__ import annotations

import math

import pytest

from faasmoe.errors import OptionError
from faasmoe.protocol.config import EngineOptions, FleetOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_alive": -1}, "--orchestrator-keep-alive -1: must be at least 0"),
        ({"keep_alive": float("nan")}, "--orchestrator-keep-alive nan"),
        ({"most": 0}, "--max-orchestrators 0: must be 1 to 1000"),
        ({"shared": 0}, "--orchestrators 0: must be 1 to 64"),
        ({"most": 1001}, "--max-orchestrators 1001: must be 1 to 1000"),
    ],
)
def test_options_of_a_fleet_are_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FleetOptions(**{"strategy": "private", **options})


@pytest.mark.parametrize("name", ["kv_cache_bytes", "max_step_tokens", "max_sequences", "max_waiting"])
def test_an_option_that_leaves_nothing_is_refused_by_name(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} is 0"):
        EngineOptions(**{name: 0})
    assert getattr(EngineOptions(**{name: 1}), name) == 1


@pytest.mark.parametrize("value", [0, -0.1, math.nan])
def test_a_gap_between_tokens_that_leaves_no_time_is_refused(value: float) -> None:
    with pytest.raises(OptionError, match=f"inter_token_latency is {value}: must be above 0 seconds"):
        EngineOptions(inter_token_latency=value)
    assert EngineOptions(inter_token_latency=math.inf).inter_token_latency == math.inf


def test_speculation_is_known_or_refused() -> None:
    with pytest.raises(OptionError, match="speculation is 'eagle': must be one of ngram, off"):
        EngineOptions(speculation="eagle")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 2**63, math.nan, math.inf])
def test_an_option_that_is_no_count_is_refused(value: float) -> None:
    with pytest.raises(OptionError, match=f"max_sequences is {value}: must be 1 to"):
        EngineOptions(max_sequences=value)  # type: ignore[arg-type]
