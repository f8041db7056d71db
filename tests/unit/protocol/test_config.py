"""Options of a fleet."""

from __future__ import annotations

import pytest

from faasmoe.errors import OptionError
from faasmoe.protocol.config import FleetOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_alive": -1}, "--orchestrator-keep-alive -1: must be at least 0"),
        ({"keep_alive": float("nan")}, "--orchestrator-keep-alive nan"),
        ({"most": 0}, "--max-orchestrators 0: must be 1 to 1000"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FleetOptions(**options)
