from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from faasmoe.cli.kernels import cache, idle_calibration
from faasmoe.cli.kernels.idle_calibration import measure_when_idle
from faasmoe.experts.kernels.calibration import Calibration, Measurement
from faasmoe.experts.kernels.choice import VARIABLE
from faasmoe.util import processes
from faasmoe.util.folders.user_cache import CACHE
from tests.unit.fleet.fleets import until

IDLE = 0.02  # seconds


class Child:
    """The process that measures. Ends with `status` after some looks at it, or when it is killed."""

    def __init__(self, looks: int, status: int = 0) -> None:
        self.looks, self.status, self.killed = looks, status, False
        self.returncode: int | None = None

    def poll(self) -> int | None:
        self.looks -= 1
        if self.looks < 0 and self.returncode is None:
            self.returncode = self.status
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            self.killed, self.returncode = True, -9

    def wait(self) -> None:
        assert self.returncode is not None


class Played:
    """A server whose requests are told, and the processes that it starts."""

    def __init__(self, *children: Child | OSError) -> None:
        self.children, self.started = list(children), []
        self.busy = False
        self.looks = 0

    def start(self, module: str, arguments: list[str]) -> Child:
        self.started.append((module, arguments))
        child = self.children.pop(0)
        if isinstance(child, OSError):
            raise child
        return child

    def is_busy(self) -> bool:
        self.looks += 1
        return self.busy


def play(monkeypatch: pytest.MonkeyPatch, *children: Child | OSError) -> Played:
    played = Played(*children)
    monkeypatch.setattr(processes, "start", played.start)
    return played


def run(played: Played, seconds: float = 5.0) -> None:
    asyncio.run(asyncio.wait_for(measure_when_idle(played.is_busy, IDLE), seconds))


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(idle_calibration, "_LOOK_SECONDS", 0.001)


def test_an_idle_server_measures_once_in_another_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    child = Child(looks=3)
    played = play(monkeypatch, child)
    with caplog.at_level(logging.INFO, "faasmoe"):
        run(played)
    assert played.started == [("faasmoe.cli.kernels.calibration", [str(os.getpid())])]
    assert not child.killed
    assert "kernels were measured while nothing ran" in caplog.text


@pytest.mark.parametrize("why", ["named", "measured"])
def test_nothing_is_measured_that_is_known_or_would_not_be_used(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "named":
        monkeypatch.setenv(VARIABLE, "avx2")
    else:
        cache.remember(Calibration([Measurement("int8", 1, "memory", {"baseline": 2.0})], 1.0))
    played = play(monkeypatch)
    run(played)
    assert (played.started, played.looks) == ([], 0)


def test_nothing_is_measured_before_the_server_has_idled_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch, Child(looks=0))
    played.busy = True

    async def served() -> None:
        task = asyncio.create_task(measure_when_idle(played.is_busy, IDLE))
        await asyncio.sleep(5 * IDLE)
        assert played.looks > 1
        assert played.started == []
        played.busy = False
        await asyncio.wait_for(task, 5)

    asyncio.run(served())
    assert len(played.started) == 1


def test_a_request_ends_a_measurement_and_the_next_idle_time_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Child(looks=10_000), Child(looks=1)
    played = play(monkeypatch, first, second)

    async def served() -> None:
        task = asyncio.create_task(measure_when_idle(played.is_busy, IDLE))
        await until(lambda: bool(played.started))
        played.busy = True
        await until(lambda: first.killed)
        played.busy = False
        await asyncio.wait_for(task, 5)

    asyncio.run(served())
    assert len(played.started) == 2
    assert not second.killed


def test_the_end_of_the_server_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(looks=10_000)
    played = play(monkeypatch, child)

    async def served() -> None:
        task = asyncio.create_task(measure_when_idle(played.is_busy, IDLE))
        await until(lambda: bool(played.started))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(served())
    assert child.killed


@pytest.mark.parametrize(
    ("child", "told"),
    [(Child(looks=1, status=1), "ended with status 1"), (OSError(11, "no more processes"), "no more processes")],
)
def test_a_failure_is_told_once_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, child: Any, told: str
) -> None:
    played = play(monkeypatch, child)
    with caplog.at_level(logging.WARNING, "faasmoe"):
        run(played)
    assert "kernels are not measured, " in caplog.text
    assert told in caplog.text
    assert len(played.started) == 1
