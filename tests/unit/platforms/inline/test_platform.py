from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from socket import gethostname

import pytest

from faasmoe.errors import DeadlineExceeded, PlatformError, UnknownFunction
from faasmoe.platforms.base import Call, FunctionSpec, FunctionStatus, Instance
from faasmoe.platforms.inline.platform import InlinePlatform


@pytest.fixture
def platform() -> Iterator[InlinePlatform]:
    with InlinePlatform() as running:
        yield running


def spec(name: str, artifact: Path, handler: str = "echo") -> FunctionSpec:
    return FunctionSpec(name, f"tests.functions:{handler}", artifact, memory=7)


def ask(platform: InlinePlatform, *functions: str, seconds: float = 60) -> list[bytes]:
    calls = [Call(name, [b"x", name.encode()]) for name in functions]
    return [bytes(reply) for reply in platform.invoke_many(calls, time.monotonic() + seconds)]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact"
    path.write_text("A:")
    return path


def test_functions_are_loaded_when_they_are_called(platform: InlinePlatform, artifact: Path) -> None:
    platform.deploy([spec(name, artifact) for name in "fgh"])
    assert ask(platform, "g", "f", "g") == [b"A:xg", b"A:xf", b"A:xg"]
    g = replace(platform.status().functions[1], p50=None, p99=None)
    assert g == FunctionStatus(
        "g", "idle", (Instance("g", gethostname()),), invocations=2, cold_starts=1, memory=7
    )
    assert platform.status().functions[2] == FunctionStatus("h")
    assert platform.status().memory_used == 14
    platform.stop(["g"])
    g = replace(platform.status().functions[1], p50=None, p99=None)
    assert g == FunctionStatus("g", invocations=2, cold_starts=1)
    assert ask(platform, "g") == [b"A:xg"]


def test_totals_count_what_was_called_and_how_long_functions_were_there(
    platform: InlinePlatform, artifact: Path
) -> None:
    platform.deploy([spec(name, artifact) for name in "fg"])
    replies = platform.invoke_many([Call(name, [b""]) for name in "fgf"], time.monotonic() + 60)
    assert replies.memory == [7] * 3
    platform.stop(["g"])
    totals = platform.status().totals
    assert (totals.invocations, totals.cold_starts) == (3, 2)
    assert totals.busy_seconds == pytest.approx(sum(replies.busy))
    assert 0 < totals.busy_gb_seconds == pytest.approx(7e-9 * totals.busy_seconds)
    assert totals.busy_gb_seconds <= totals.instance_gb_seconds
    platform.deploy([FunctionSpec("f", "tests.functions:echo", artifact, memory=8)])
    assert platform.status().totals.invocations == 3


def test_what_is_deployed_again_is_loaded_again(platform: InlinePlatform, artifact: Path, tmp_path: Path) -> None:
    platform.deploy([spec("f", artifact)])
    assert ask(platform, "f") == [b"A:xf"]
    (tmp_path / "other").write_text("B:")
    platform.deploy([spec("f", tmp_path / "other")])
    assert ask(platform, "f") == [b"B:xf"]


def test_what_cannot_be_done_is_said(platform: InlinePlatform, artifact: Path, tmp_path: Path) -> None:
    platform.deploy([spec("f", artifact), spec("gone", tmp_path / "gone")])
    with pytest.raises(UnknownFunction, match="platform inline, function ghost: it is not deployed"):
        ask(platform, "f", "ghost")
    with pytest.raises(PlatformError, match="function gone: it cannot be loaded: FileNotFoundError"):
        ask(platform, "gone")
    with pytest.raises(DeadlineExceeded, match="function f"):
        ask(platform, "f", seconds=-1)
    platform.remove(["f"])
    with pytest.raises(UnknownFunction):
        platform.stop(["f"])
