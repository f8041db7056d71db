"""The life of a function on the embedded platform."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from faasmoe.errors import PlatformError
from faasmoe.platforms.local.platform import LocalPlatform
from tests import processes
from tests.conformance.conftest import spec
from tests.integration.local_platform.conftest import ask
from tests.waiting import wait_until


def test_cold_starts_are_timed_by_phase(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    started = time.monotonic()
    ask(platform, "f")
    phases = platform.status().cold_start_phases
    assert set(phases) == {"fork", "map", "first_touch"}
    assert all(count == 1 for count, _ in phases.values())
    assert 0 < sum(seconds for _, seconds in phases.values()) < time.monotonic() - started


def test_a_removed_functions_process_ends(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "pid", artifact), spec("g", "pid", artifact)])
    f, g = map(int, ask(platform, "f", "g"))
    assert {f, g} <= set(processes.of_pool(platform))
    platform.remove(["f"])
    assert wait_until(lambda: f not in processes.of_pool(platform))
    assert ask(platform, "g") == [b"%d" % g]


def test_loading_is_tried_three_times(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("bad", "unloadable", artifact)])
    with pytest.raises(
        PlatformError, match=r"function bad: it cannot be loaded: OSError: no weights here \(3 att"
    ):
        ask(platform, "bad")


def test_instances_that_are_to_stay_for_ever_do(platform: LocalPlatform, artifact: Path) -> None:
    names = {"ever": math.inf, "aeon": 1e300, "month": 2.6e6}
    platform.deploy([spec(name, "echo", artifact, keep_alive=seconds) for name, seconds in names.items()])
    for _ in range(2):
        assert ask(platform, *names) == [b"A:"] * 3
    assert [(each.cold_starts, each.deaths) for each in platform.status().functions] == [(1, 0)] * 3


def test_two_clients_use_the_same_instances(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "pid", artifact)])
    with LocalPlatform(folder=platform.folder) as other:
        assert ask(platform, "f") == ask(other, "f")
    assert platform.status().functions[0].cold_starts == 1
