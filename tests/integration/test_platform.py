"""Contract 2. One suite for every platform; `local` is the only one so far."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faasmoe.errors import DeadlineExceeded, PlatformError, UnknownFunction
from faasmoe.platforms.base import Call, FunctionSpec, Platform
from faasmoe.platforms.local import wire
from faasmoe.platforms.local.platform import LocalPlatform

PLATFORMS: dict[str, Callable[[], Platform]] = {"local": lambda: LocalPlatform(keep_alive=30)}


@pytest.fixture(params=PLATFORMS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with PLATFORMS[request.param]() as running:
        yield running


def spec(name: str, handler: str, artifact: Path, keep_alive: float | None = None) -> FunctionSpec:
    return FunctionSpec(name, f"tests.functions:{handler}", artifact, keep_alive)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact"
    path.write_text("A:")
    return path


def soon(seconds: float = 30) -> float:
    return time.monotonic() + seconds


def instances(platform: Platform) -> list[int]:
    return [i for status in platform.list() for i in status.instances]


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        select.select([], [], [], 0.02)
    return condition()


def test_replies_come_in_the_order_of_calls(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec(f"f{i}", "echo", artifact) for i in range(8)])
    assert instances(platform) == []
    calls = [Call(f"f{i}", [f"{i}".encode(), b"", b"!" * i]) for i in reversed(range(8))]
    for _ in range(2):
        replies = platform.invoke_many(calls, soon())
        assert replies == [f"A:{i}{'!' * i}".encode() for i in reversed(range(8))]
    status = {s.name: s for s in platform.list()}["f3"]
    assert (len(status.instances), status.invocations, status.cold_starts) == (1, 2, 1)


def test_a_function_may_be_called_twice_at_once(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    replies = platform.invoke_many([Call("f", [b"1"]), Call("f", [b"2"]), Call("f", [b"3"])], soon())
    assert replies == [b"A:1", b"A:2", b"A:3"]


def test_large_payloads_pass_both_ways(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact), spec("g", "echo", artifact)])
    big = os.urandom(8 << 20)
    replies = platform.invoke_many([Call("f", [big]), Call("g", [big[: 1 << 20]])], soon())
    assert replies == [b"A:" + big, b"A:" + big[: 1 << 20]]


def test_no_calls_no_replies(platform: Platform) -> None:
    assert platform.invoke_many([], soon()) == []


def test_unknown_functions_are_named(platform: Platform, artifact: Path) -> None:
    with pytest.raises(UnknownFunction, match="function ghost: it was never deployed"):
        platform.invoke_many([Call("ghost", [b""])], soon())
    with pytest.raises(UnknownFunction, match="ghost"):
        platform.remove(["ghost"])
    platform.deploy([spec("f", "echo", artifact)])
    platform.invoke_many([Call("f", [b""])], soon())
    platform.remove(["f"])
    with pytest.raises(UnknownFunction, match="function f"):
        platform.invoke_many([Call("f", [b""])], soon())


def test_deploying_again_runs_the_new_artifact(platform: Platform, artifact: Path, tmp_path: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    assert platform.invoke_many([Call("f", [b""])], soon()) == [b"A:"]
    (tmp_path / "other").write_text("B:")
    platform.deploy([spec("f", "echo", tmp_path / "other")])
    assert platform.invoke_many([Call("f", [b""])], soon()) == [b"B:"]


def test_prewarm_starts_without_a_call(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    platform.prewarm(["f"])
    assert [(len(s.instances), s.invocations) for s in platform.list()] == [(1, 0)]


def test_idle_instances_stop_and_come_back(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "pid", artifact, keep_alive=0.2)])
    (first,) = platform.invoke_many([Call("f", [b""])], soon())
    assert wait_until(lambda: instances(platform) == [])
    assert not Path(f"/proc/{first.decode()}").exists()
    (second,) = platform.invoke_many([Call("f", [b""])], soon())
    assert first != second
    assert platform.list()[0].cold_starts == 2


def test_a_killed_instance_is_replaced(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec(f"f{i}", "pid", artifact) for i in range(3)])
    calls = [Call(f"f{i}", [b""]) for i in range(3)]
    before = platform.invoke_many(calls, soon())
    os.kill(int(before[1]), signal.SIGKILL)
    after = platform.invoke_many(calls, soon())
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_a_call_whose_instance_dies_is_tried_again(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "lives").write_text("3")
    platform.deploy([spec("f", "suicide", tmp_path / "lives")])
    assert platform.invoke_many([Call("f", [b""])], soon()) == [b"alive"]
    assert platform.list()[0].cold_starts == 4


def test_a_function_that_always_dies_is_an_error_that_counts(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "lives").write_text("1000")
    platform.deploy([spec("f", "suicide", tmp_path / "lives"), spec("bad", "unloadable", tmp_path)])
    for name in ("f", "bad"):
        with pytest.raises(PlatformError, match=f"function {name}: its instance died 20 times"):
            platform.invoke_many([Call(name, [b""])], soon())


def test_a_stuck_function_meets_the_deadline_and_stops_nobody_else(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("stuck", "stuck", artifact), spec("f", "echo", artifact)])
    platform.prewarm(["f", "stuck"])
    assert platform.invoke_many([Call("f", [b"1"])], soon()) == [b"A:1"]
    with pytest.raises(DeadlineExceeded, match="function stuck"):
        platform.invoke_many([Call("f", [b"1"]), Call("stuck", [b""])], soon(2))
    assert platform.invoke_many([Call("f", [b"2"])], soon()) == [b"A:2"]


def test_asking_for_status_does_not_disturb_calls(platform: Platform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(lambda: [len(platform.list()) for _ in range(200)])
        for i in range(200):
            assert platform.invoke_many([Call("f", [b"%d" % i])], soon()) == [b"A:%d" % i]
        assert asked.result() == [1] * 200


def test_close_leaves_no_process_and_no_file(artifact: Path) -> None:
    platform = LocalPlatform(keep_alive=30)
    assert stat.S_IMODE(platform.folder.stat().st_mode) == 0o700
    platform.deploy([spec("f", "echo", artifact)])
    platform.prewarm(["f"])
    pids = platform.processes()
    platform.close()
    platform.close()
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not platform.folder.exists()


def test_instances_die_with_a_killed_daemon(artifact: Path) -> None:
    with LocalPlatform(keep_alive=30) as platform:
        platform.deploy([spec("f", "echo", artifact)])
        platform.prewarm(["f"])
        daemon, instance = platform.processes()
        os.kill(daemon, signal.SIGKILL)
        assert wait_until(lambda: not Path(f"/proc/{instance}").exists())
        for _ in range(2):
            with pytest.raises(PlatformError, match="daemon does not answer"):
                platform.list()


def test_the_daemon_ends_with_a_killed_owner(artifact: Path) -> None:
    script = (
        "import sys, time; from faasmoe.platforms.local.platform import LocalPlatform;"
        "from faasmoe.platforms.base import FunctionSpec; from pathlib import Path;"
        "p = LocalPlatform(30); p.deploy([FunctionSpec('f', 'tests.functions:echo', Path(sys.argv[1]))]);"
        "p.prewarm(['f']); print(p.folder, *p.processes(), flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(artifact)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    folder, *pids = owner.stdout.readline().split()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert len(pids) == 2
    assert wait_until(lambda: not Path(folder).exists())
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_nonsense_on_the_control_socket_harms_nobody(artifact: Path) -> None:
    with LocalPlatform(keep_alive=30) as platform:
        platform.deploy([spec("f", "echo", artifact)])
        for message in ({}, {"operation": "deploy", "functions": [["too", "short"]]}, {"operation": "rm"}):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(str(platform.folder / "daemon.sock"))
                wire.send_json(stranger, message)
                assert "error" in wire.receive_json(stranger)
        assert platform.invoke_many([Call("f", [b"1"])], soon()) == [b"A:1"]


def test_a_connection_that_breaks_or_lies_is_lost() -> None:
    here, there = socket.socketpair()
    with here:
        there.sendall(b"\xff" * 8)
        with pytest.raises(wire.Lost, match="are the limit"):
            wire.receive(here)
        wire.send(there, [b"[1]"])
        with pytest.raises(wire.Lost, match="not a JSON object"):
            wire.receive_json(here)
        there.close()
        with pytest.raises(wire.Lost, match="closed"):
            wire.receive(here)
        with pytest.raises(wire.Lost):
            wire.send(here, [b"x" * (1 << 20)])
