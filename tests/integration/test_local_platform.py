"""What the embedded platform promises beyond the contract: memory, faults, leftovers, several clients."""

from __future__ import annotations

import math
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from faasmoe.errors import DeadlineExceeded, FunctionError, OptionError, PlatformError, UnknownFunction
from faasmoe.platforms.base import Call, FileRange, FunctionSpec
from faasmoe.platforms.local.client.control import Activator
from faasmoe.platforms.local.daemon.pool import INSTANCE_BYTES
from faasmoe.platforms.local.entry import pools
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.local.protocol import wire
from faasmoe.platforms.local.protocol.messages import Activated, Wanted
from faasmoe.util.folders.run_folder import RunFolder
from tests.conformance.conftest import soon, spec
from tests.tools import tool
from tests.waiting import alive, wait_until


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact"
    path.write_text("A:")
    return path


@pytest.fixture
def platform() -> Iterator[LocalPlatform]:
    with LocalPlatform() as running:
        yield running


def own_bytes(spec: FunctionSpec) -> int:
    """What daemon and zygote count for in a budget."""
    with LocalPlatform() as platform:
        platform.deploy([spec])
        platform.prewarm([spec.name])
        status = platform.status()
        return status.memory_used - sum(function.memory for function in status.functions)


@pytest.fixture
def tight(artifact: Path) -> Iterator[LocalPlatform]:
    """A pool that has room for two instances."""
    budget = own_bytes(spec("f", "echo", artifact)) * 11 // 10 + 2 * INSTANCE_BYTES
    with LocalPlatform(LocalOptions(memory_budget=budget)) as running:
        yield running


def ask(platform: LocalPlatform, *functions: str, payload: bytes = b"", seconds: float = 60) -> list[bytes]:
    replies = platform.invoke_many([Call(name, [payload]) for name in functions], soon(seconds))
    return [bytes(reply) for reply in replies]


def instances(platform: LocalPlatform) -> list[int]:
    return [int(each.id) for status in platform.status().functions for each in status.instances]


# Memory


def test_a_fan_out_wider_than_the_budget_is_run_in_turns(tight: LocalPlatform, artifact: Path) -> None:
    tight.deploy([spec(f"f{i}", "echo", artifact) for i in range(6)])
    assert ask(tight, *(f"f{i}" for i in range(6)), payload=b"x") == [b"A:x"] * 6
    status = tight.status()
    assert status.memory_budget is not None
    assert status.memory_used <= status.memory_budget
    assert sum(function.evictions for function in status.functions) >= 4
    assert len(instances(tight)) <= 2


def test_the_least_valuable_instance_makes_room(tight: LocalPlatform, artifact: Path) -> None:
    tight.deploy([spec(name, "echo", artifact) for name in ("often", "once", "new")])
    for _ in range(20):
        ask(tight, "often")
    ask(tight, "once")
    ask(tight, "new")
    assert {s.name: s.evictions for s in tight.status().functions} == {"often": 0, "once": 1, "new": 0}


def test_a_call_waits_for_memory_and_then_says_so(tight: LocalPlatform, artifact: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    tight.deploy([spec(f"busy{i}", "patient", tmp_path / "pipe") for i in range(2)])
    tight.deploy([spec("f", "echo", artifact)])
    with LocalPlatform(folder=tight.folder) as other:
        waiting = threading.Thread(target=ask, args=(other, "busy0", "busy1"))
        waiting.start()
        assert wait_until(lambda: [s.state for s in tight.status().functions[:2]] == ["busy", "busy"])
        with pytest.raises(
            DeadlineExceeded, match=r"function f: no instance within the deadline: the memory budget"
        ):
            ask(tight, "f", seconds=0.5)
        with (tmp_path / "pipe").open("r+b", buffering=0) as pipe:
            pipe.write(b"..")
            assert ask(tight, "f") == [b"A:"]  # as soon as one of the others is idle
            waiting.join(60)
    assert not waiting.is_alive()


def test_instances_that_nobody_calls_make_room(tight: LocalPlatform, artifact: Path) -> None:
    tight.deploy([spec(name, "echo", artifact) for name in ("a", "b", "c", "d", "e")])
    tight.prewarm(["a", "b"])
    assert ask(tight, "c", "d", seconds=20) == [b"A:"] * 2
    dreamer = Activator(tight.folder)
    assert dreamer.request([Wanted(0, "a"), Wanted(1, "b")], 20)
    assert all(isinstance(dreamer.answer(), Activated) for _ in range(2))  # promised to somebody who will not call
    assert ask(tight, "e", seconds=20) == [b"A:"]
    dreamer.close()


def test_who_waits_for_memory_gets_what_is_deployed_by_then(tight: LocalPlatform, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "new").write_text("B:")
    tight.deploy([spec(name, "patient", tmp_path / "pipe") for name in ("busy0", "busy1")])
    tight.deploy([spec(name, "echo", tmp_path / "gone") for name in ("f", "g", "h")])
    with ExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(4))
        clients = [stack.enter_context(LocalPlatform(folder=tight.folder)) for _ in range(3)]
        busy = executor.submit(ask, tight, "busy0", "busy1")
        assert wait_until(lambda: [s.state for s in tight.status().functions[:2]] == ["busy", "busy"])
        given_up = Activator(tight.folder)
        assert given_up.request([Wanted(0, "h")], 60)
        assert wait_until(lambda: tight.status().waiting == 1)
        waiting = [executor.submit(ask, c, name) for c, name in zip(clients, ("f", "g"), strict=False)]
        assert wait_until(lambda: tight.status().waiting == 3)
        given_up.close()
        assert wait_until(lambda: tight.status().waiting == 2)
        tight.deploy([spec("f", "echo", tmp_path / "new")])
        tight.remove(["g"])
        with (tmp_path / "pipe").open("r+b", buffering=0) as pipe:
            pipe.write(b"..")
            assert busy.result(60) == [b"."] * 2
        assert waiting[0].result(60) == [b"B:"]
        with pytest.raises(UnknownFunction, match="function g: it is not deployed"):
            waiting[1].result(60)


def test_a_budget_that_can_never_do_is_refused(tight: LocalPlatform, artifact: Path) -> None:
    tight.deploy(
        [spec(f"f{i}", "echo", artifact) for i in range(3)] + [spec("big", "echo", artifact, memory=1 << 40)]
    )
    tight.check_fits(["f0", "f1"])
    with pytest.raises(OptionError, match=r"memory budget is too small: a single token needs [0-9]+ MiB"):
        tight.check_fits(["f0", "f1", "f2"])
    with pytest.raises(PlatformError, match=r"function big: it needs .* but the memory budget is"):
        ask(tight, "big")


def test_released_weights_leave_the_page_cache(tmp_path: Path) -> None:
    fincore = tool("fincore", "util-linux-extra")
    weights = tmp_path / "weights"
    size, cuts = 16 << 20, (5000, 4 << 20, (7 << 20) + 4096, 15 << 20)  # most of them within a large folio
    weights.write_bytes(os.urandom(size))
    with weights.open("rb") as stream:
        os.fsync(stream.fileno())
        stream.read()
    files = tuple(FileRange(weights, start, end - start) for start, end in pairwise((0, *cuts, size)))
    with LocalPlatform(LocalOptions(release_page_cache=True)) as platform:
        platform.deploy([spec("f", "echo", weights, files=files)])
        platform.prewarm(["f"])
        platform.stop(["f"])
        assert wait_until(lambda: resident(fincore, weights) == 0)


def resident(fincore: str, file: Path) -> int:
    """Pages of a file in the page cache, as `fincore` says."""
    out = subprocess.run([fincore, "-nr", "-o", "PAGES", file], capture_output=True, text=True, check=True)
    return int(out.stdout)


# Faults


def test_a_killed_instance_is_replaced(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec(f"f{i}", "pid", artifact) for i in range(3)])
    before = ask(platform, "f0", "f1", "f2")
    os.kill(int(before[1]), signal.SIGKILL)
    after = ask(platform, "f0", "f1", "f2")
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert wait_until(lambda: platform.status().functions[1].deaths == 1)


def test_a_call_whose_instance_dies_is_tried_again(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "mortal", artifact)])
    healer = threading.Thread(
        target=lambda: wait_until(lambda: platform.status().functions[0].deaths >= 2) and artifact.unlink()
    )
    healer.start()
    assert ask(platform, "f") == [b"alive"]
    healer.join()


def test_a_function_that_always_dies_is_an_error_that_counts(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "mortal", artifact)])
    with pytest.raises(
        PlatformError, match=r"function f: 20 attempts failed; its last instance was lost: killed by"
    ):
        ask(platform, "f")


def test_the_daemon_comes_back_and_knows_the_functions(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact), spec("g", "echo", artifact)])
    assert ask(platform, "f", payload=b"1") == [b"A:1"]
    daemon, *others = platform.processes()
    os.kill(daemon, signal.SIGKILL)
    assert ask(platform, "f", "g", payload=b"2") == [b"A:2", b"A:2"]
    assert platform.processes()[0] != daemon
    assert wait_until(lambda: not any(map(alive, others)))


def test_instances_that_are_to_stay_for_ever_do(platform: LocalPlatform, artifact: Path) -> None:
    names = {"ever": math.inf, "aeon": 1e300, "month": 2.6e6}
    platform.deploy([spec(name, "echo", artifact, keep_alive=seconds) for name, seconds in names.items()])
    for _ in range(2):
        assert ask(platform, *names) == [b"A:"] * 3
    assert [(each.cold_starts, each.deaths) for each in platform.status().functions] == [(1, 0)] * 3


def test_the_zygote_comes_back(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    assert ask(platform, "f", payload=b"1") == [b"A:1"]
    zygote = platform.processes()[1]
    os.kill(zygote, signal.SIGKILL)
    assert ask(platform, "f", payload=b"2") == [b"A:2"]
    assert wait_until(lambda: not alive(zygote))


def test_a_pool_that_nobody_needs_has_no_process_until_somebody_does(artifact: Path) -> None:
    with LocalPlatform(LocalOptions(keep_alive=0.1, zygote_keep_alive=0.2)) as platform:
        platform.deploy([spec("f", "echo", artifact)])
        with LocalPlatform(folder=platform.folder) as other:
            for times in range(1, 3):
                assert ask(other, "f", payload=b"1") == [b"A:1"]
                assert wait_until(lambda: not platform.processes())
                status = platform.status()  # for which nobody is woken
                assert not platform.processes()
                assert (status.totals.invocations, status.totals.cold_starts) == (times, times)
                assert status.functions[0].invocations == times
                assert status.memory_used == 0
            platform.remove(["f"])
            with pytest.raises(UnknownFunction):
                ask(other, "f")


def test_a_daemon_at_rest_is_closed_at_once(artifact: Path) -> None:
    with LocalPlatform(LocalOptions(zygote_keep_alive=0.1)) as platform:
        assert wait_until(lambda: not platform.processes())
        began = time.monotonic()
    assert time.monotonic() - began < 5  # it waits for nobody
    assert not platform.folder.exists()


def test_a_call_to_a_pool_without_a_daemon_waits_for_the_next_one(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    with LocalPlatform(folder=platform.folder) as other:  # has no connection yet
        os.kill(platform.processes()[0], signal.SIGKILL)
        assert ask(other, "f", payload=b"1") == [b"A:1"]


def test_a_module_that_cannot_be_imported_is_an_error(artifact: Path) -> None:
    with LocalPlatform(LocalOptions(preload=("no.such.module",))) as platform:
        platform.deploy([spec("f", "echo", artifact)])
        with pytest.raises(PlatformError, match="what functions need cannot be imported: No module named 'no'"):
            ask(platform, "f")


def test_a_client_that_dies_with_calls_in_flight_hurts_nobody(platform: LocalPlatform, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    platform.deploy([spec("f", "patient", tmp_path / "pipe")])
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


# Endings and leftovers


def test_close_leaves_no_process_and_no_file_and_says_nothing(
    artifact: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    platform = LocalPlatform()
    assert stat.S_IMODE(platform.folder.stat().st_mode) == 0o700
    assert platform.folder in pools()
    platform.deploy([spec("f", "echo", artifact)])
    platform.prewarm(["f"])
    pids = platform.processes()
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
        "import sys, time; from faasmoe.platforms.local.platform import LocalPlatform;"
        "from faasmoe.platforms.base import FunctionSpec; from pathlib import Path;"
        "p = LocalPlatform(); p.deploy([FunctionSpec('f', 'tests.functions:echo', Path(sys.argv[1]))]);"
        "p.prewarm(['f']); print(p.folder, *p.processes(), flush=True); time.sleep(60)"
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


# Strangers


def test_two_clients_use_the_same_instances(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "pid", artifact)])
    with LocalPlatform(folder=platform.folder) as other:
        assert ask(platform, "f") == ask(other, "f")
    assert platform.status().functions[0].cold_starts == 1


@pytest.mark.parametrize(
    "message",
    [b"", b"\xff" * 64, wire.framed(b"{}"), wire.framed(b'{"kind": "rm"}'), wire.framed(b'{"kind": "Activate"}'),
     wire.framed(b'{"kind": "Deploy", "functions": [["too", "short"]]}'), b"\x10" + bytes(7) + b"{"],
)  # fmt: skip
def test_nonsense_on_the_control_socket_harms_nobody(
    platform: LocalPlatform, artifact: Path, message: bytes
) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(platform.folder / "daemon.sock"))
        stranger.sendall(message)
        assert ask(platform, "f", payload=b"1") == [b"A:1"]
    assert ask(platform, "f", payload=b"2") == [b"A:2"]


@pytest.mark.parametrize(
    "noise", [b"", b"x", b"FMcq", b"\0" * 64, b"FMcq\1\0\0\0" + b"\xff" * 56, os.urandom(4096)]
)
def test_nonsense_on_an_instances_socket_harms_nobody(
    platform: LocalPlatform, artifact: Path, noise: bytes
) -> None:
    platform.deploy([spec("f", "pid", artifact)])
    before = ask(platform, "f")
    (path,) = (path for path in platform.folder.glob("*.sock") if path.name != "daemon.sock")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(path))
        stranger.sendall(noise)
        assert ask(platform, "f") == before
    assert ask(platform, "f") == before


@pytest.mark.parametrize("what", ["socket", "file"])
def test_an_instance_cannot_get_out(platform: LocalPlatform, artifact: Path, tmp_path: Path, what: str) -> None:
    platform.deploy([spec("f", "prisoner", artifact)])
    target = "socket" if what == "socket" else str(tmp_path / "escape")
    with pytest.raises(FunctionError, match="PermissionError"):
        ask(platform, "f", payload=target.encode())
    assert not (tmp_path / "escape").exists()


def test_cold_starts_are_timed_by_phase(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "echo", artifact)])
    started = time.monotonic()
    ask(platform, "f")
    phases = platform.status().cold_start_phases
    assert set(phases) == {"fork", "map", "first_touch"}
    assert all(count == 1 for count, _ in phases.values())
    assert 0 < sum(seconds for _, seconds in phases.values()) < time.monotonic() - started


# Functions


def test_a_removed_functions_process_ends(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("f", "pid", artifact), spec("g", "pid", artifact)])
    f, g = map(int, ask(platform, "f", "g"))
    assert {f, g} <= set(platform.processes())
    platform.remove(["f"])
    assert wait_until(lambda: f not in platform.processes())
    assert ask(platform, "g") == [b"%d" % g]


def test_loading_is_tried_three_times(platform: LocalPlatform, artifact: Path) -> None:
    platform.deploy([spec("bad", "unloadable", artifact)])
    with pytest.raises(
        PlatformError, match=r"function bad: it cannot be loaded: OSError: no weights here \(3 att"
    ):
        ask(platform, "bad")
