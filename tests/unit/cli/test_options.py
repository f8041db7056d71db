from __future__ import annotations

import logging

import pytest
import typer

from faasmoe.cli.numeric import Size
from faasmoe.cli.options import engine_options
from faasmoe.cli.platforms import platform_options
from faasmoe.platforms.registry import find
from faasmoe.util import machine

GIB = 1 << 30


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 8 * GIB)
    monkeypatch.setattr(machine, "available_memory", lambda: 5 * GIB)
    monkeypatch.setattr(machine, "memory_is_limited", lambda: True)


@pytest.mark.usefixtures("limited")
def test_functions_have_a_part_of_what_a_control_group_leaves(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "faasmoe"):
        assert platform_options(find("local"), None, 60.0, None, False).memory_budget == 3 * GIB
    assert "functions have 3072 MiB" in caplog.text
    assert platform_options(find("local"), None, 60.0, 7 * GIB, False).memory_budget == 7 * GIB


def test_there_is_no_budget_where_nothing_limits_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_is_limited", lambda: False)
    assert platform_options(find("local"), None, 60.0, None, False).memory_budget is None
    assert engine_options(None, 1, 1).kv_cache_bytes is None


@pytest.mark.usefixtures("limited")
def test_more_memory_than_there_is_is_refused() -> None:
    message = r"16GiB: 17.18 GB, and the control group that this runs in has 8.59 GB in all"
    with pytest.raises(typer.BadParameter, match=message):
        Size(ours=True)("16GiB")
    assert Size(ours=False)("16GiB") == 16 * GIB
