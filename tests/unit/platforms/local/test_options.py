from __future__ import annotations

import math

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.local.options import LocalOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keep_alive", -1.0), ("keep_alive", math.nan), ("zygote_keep_alive", -math.inf),
        ("memory_budget", 0), ("memory_budget", -1), ("memory_budget", 2**63), ("memory_budget", math.nan),
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"{name} is {value}: must be"):
        LocalOptions(**{name: value})  # type: ignore[arg-type]


def test_options_travel_as_text() -> None:
    options = LocalOptions(keep_alive=math.inf, memory_budget=1 << 30, preload=("a", "b"))
    assert LocalOptions.from_json(options.to_json()) == options
