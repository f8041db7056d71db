"""Prometheus' own check of all series, those that a test's server does not have included."""

from __future__ import annotations

import pytest

from tests.metrics import NO_PROMTOOL, everything, promtool, text


def test_promtool_has_nothing_to_say_of_all_series() -> None:
    said = promtool(text(everything()))
    if said is None:
        pytest.skip(NO_PROMTOOL)
    assert said == ""


def test_promtool_finds_what_offends() -> None:
    said = promtool(
        '# HELP faasmoe_x_seconds X\n# TYPE faasmoe_x_seconds gauge\nfaasmoe_x_seconds{quantile="0.5"} 1\n'
    )
    if said is None:
        pytest.skip(NO_PROMTOOL)
    assert "quantile" in said
