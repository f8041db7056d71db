"""What the embedded platform does when an instance, the zygote, the daemon or a client dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from faasmoe.errors import PlatformError
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.platform import LocalPlatform
from tests import processes
from tests.conformance.conftest import naming, spec
from tests.integration.local_platform.conftest import ask
from tests.waiting import alive, wait_until


def test_a_killed_instance_is_replaced(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec(f"f{i}", "pid", artifact) for i in range(3)])
    before = ask(platform, "f0", "f1", "f2")
    os.kill(int(before[1]), signal.SIGKILL)
    after = ask(platform, "f0", "f1", "f2")
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert wait_until(lambda: platform.status().functions[1].deaths == 1)


def test_a_call_whose_instance_dies_is_tried_again(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "mortal", naming(artifact))])
    healer = threading.Thread(
        target=lambda: wait_until(lambda: platform.status().functions[0].deaths >= 2) and artifact.unlink()
    )
    healer.start()
    assert ask(platform, "f") == [b"alive"]
    healer.join()


def test_a_function_that_always_dies_is_an_error_that_counts(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "mortal", naming(artifact))])
    with pytest.raises(
        PlatformError, match=r"function f: 20 attempts failed; its last instance was lost: killed by"
    ):
        ask(platform, "f")


def test_the_daemon_comes_back_and_knows_the_functions(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact), spec("g", "echo", artifact)])
    assert ask(platform, "f", payload=b"1") == [b"A:1"]
    daemon, *others = processes.of_pool(platform)
    os.kill(daemon, signal.SIGKILL)
    assert ask(platform, "f", "g", payload=b"2") == [b"A:2", b"A:2"]
    assert processes.of_pool(platform)[0] != daemon
    assert wait_until(lambda: not any(map(alive, others)))


def test_the_zygote_comes_back(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    assert ask(platform, "f", payload=b"1") == [b"A:1"]
    zygote = processes.of_pool(platform)[1]
    os.kill(zygote, signal.SIGKILL)
    assert ask(platform, "f", payload=b"2") == [b"A:2"]
    assert wait_until(lambda: not alive(zygote))


def test_a_call_to_a_pool_without_a_daemon_waits_for_the_next_one(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    with LocalPlatform(folder=platform.folder) as other:  # has no connection yet
        os.kill(processes.of_pool(platform)[0], signal.SIGKILL)
        assert ask(other, "f", payload=b"1") == [b"A:1"]


def test_a_module_that_cannot_be_imported_is_an_error(artifact: Path) -> None:
    with LocalPlatform(LocalOptions(preload=("no.such.module",))) as platform:
        platform.deploy([spec("f", "echo", artifact)])
        with pytest.raises(PlatformError, match="what functions need cannot be imported: No module named 'no'"):
            ask(platform, "f")


def test_a_client_that_dies_with_calls_in_flight_hurts_nobody(platform: LocalPlatform, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    platform.deploy([spec("f", "patient", naming(tmp_path / "pipe"))])
    client = run_client("p.invoke_many([Call('f', [b'lost'])], time.monotonic() + 60)", platform.folder)
    assert wait_until(lambda: platform.status().functions[0].state == "busy")
    client.kill()
    client.wait()
    with (tmp_path / "pipe").open("r+b", buffering=0) as pipe:
        pipe.write(b"1")
        assert wait_until(lambda: platform.status().functions[0].state == "idle")
        pipe.write(b"2")
        assert ask(platform, "f", payload=b"x") == [b"x2"]
    assert platform.status().functions[0].deaths == 0


def run_client(code: str, folder: Path) -> subprocess.Popen[str]:
    script = (
        "import sys, time; from pathlib import Path; from faasmoe.platforms.base import Call, FunctionSpec;"
        "from faasmoe.platforms.local.platform import LocalPlatform;"
        f"p = LocalPlatform(folder=Path({str(folder)!r})); {code}"
    )
    return subprocess.Popen([sys.executable, "-c", script], text=True)
