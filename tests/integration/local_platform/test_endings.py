"""The end of a pool: no process and no file is left."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faasmoe.errors import UnknownFunction
from faasmoe.platforms.local.entry import pools
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.util.folders.run_folder import RunFolder
from tests import processes
from tests.conformance.conftest import spec
from tests.integration.local_platform.conftest import ask
from tests.waiting import alive, wait_until


def test_close_leaves_no_process_and_no_file_and_says_nothing(
    artifact: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    platform = LocalPlatform()
    assert stat.S_IMODE(platform.folder.stat().st_mode) == 0o700
    assert platform.folder in pools()
    platform.deploy([spec("f", "echo", artifact)])
    platform.prewarm(["f"])
    pids = processes.of_pool(platform)
    capfd.readouterr()
    with LocalPlatform(folder=platform.folder) as other:
        other.status()
        platform.close()  # while somebody is connected
    platform.close()
    assert capfd.readouterr().err == ""
    assert len(pids) >= 3
    assert wait_until(lambda: not any(map(alive, pids)))
    assert not platform.folder.exists()


def test_everything_ends_with_a_killed_owner_and_is_swept(artifact: Path) -> None:
    script = (
        "import sys, time; from faasmoe.platforms.local.platform import LocalPlatform; from tests import processes;"
        "from faasmoe.platforms.base import FunctionSpec; from pathlib import Path;"
        "p = LocalPlatform(); p.deploy([FunctionSpec('f', 'tests.functions:echo', Path(sys.argv[1]))]);"
        "p.prewarm(['f']); print(p.folder, *processes.of_pool(p), flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(artifact)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        folder, *pids = owner.stdout.readline().split()
    os.kill(int(pids[0]), signal.SIGSTOP)  # this daemon will not notice
    owner.kill()
    owner.wait()
    with RunFolder():
        assert not Path(folder).exists()
    assert len(pids) >= 3
    assert wait_until(lambda: not any(alive(int(pid)) for pid in pids))


def test_a_pool_that_nobody_needs_has_no_process_until_somebody_does(artifact: Path) -> None:
    with LocalPlatform(LocalOptions(keep_alive=0.1, zygote_keep_alive=0.2)) as platform:
        platform.deploy([spec("f", "echo", artifact)])
        with LocalPlatform(folder=platform.folder) as other:
            for times in range(1, 3):
                assert ask(other, "f", payload=b"1") == [b"A:1"]
                assert wait_until(lambda: not processes.of_pool(platform))
                status = platform.status()  # for which nobody is woken
                assert not processes.of_pool(platform)
                assert (status.totals.invocations, status.totals.cold_starts) == (times, times)
                assert status.functions[0].invocations == times
                assert status.memory_used == 0
            platform.remove(["f"])
            with pytest.raises(UnknownFunction):
                ask(other, "f")


def test_a_daemon_at_rest_is_closed_at_once(artifact: Path) -> None:
    with LocalPlatform(LocalOptions(zygote_keep_alive=0.1)) as platform:
        assert wait_until(lambda: not processes.of_pool(platform))
        began = time.monotonic()
    assert time.monotonic() - began < 5  # it waits for nobody
    assert not platform.folder.exists()
