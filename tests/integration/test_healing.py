"""The embedded platform heals: whatever is killed, stopped, frozen or refused, the next call is answered soon."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from faasmoe.errors import FunctionError, PlatformError
from faasmoe.platforms.base import Call
from faasmoe.platforms.local.client.control import Activator
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.local.supervisor import supervisor
from tests import processes
from tests.conformance.conftest import naming, soon, spec
from tests.waiting import alive, wait_until

HEALED = 10.0  # seconds; on a machine that others use


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact"
    path.write_text("A:")
    return path


@pytest.fixture
def platform(artifact: Path) -> Iterator[LocalPlatform]:
    with LocalPlatform() as running:
        running.deploy([spec(f"f{i}", "echo", artifact) for i in range(20)])
        yield running


def ask(platform: LocalPlatform, *functions: str, seconds: float = 60) -> float:
    """Seconds until all have answered."""
    began = time.monotonic()
    replies = platform.invoke_many([Call(name, [b"x"]) for name in functions], soon(seconds))
    assert [bytes(reply) for reply in replies] == [b"A:x"] * len(functions)
    return time.monotonic() - began


def instance(platform: LocalPlatform, name: str) -> int:
    return next(
        int(each.id) for status in platform.status().functions if status.name == name for each in status.instances
    )


def zygote(platform: LocalPlatform) -> int:
    daemon = psutil.Process(processes.of_pool(platform)[0])
    assert wait_until(lambda: len(daemon.children()) == 1)  # else the last one is dying, or the next one starting
    return int(daemon.children()[0].pid)


def preforked(platform: LocalPlatform) -> list[int]:
    used = {int(each.id) for status in platform.status().functions for each in status.instances}
    return [child.pid for child in psutil.Process(zygote(platform)).children() if child.pid not in used]


def stop(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


# What is stopped


def test_whatever_is_stopped_is_replaced_and_calls_are_answered(platform: LocalPlatform) -> None:
    ask(platform, "f0", "f1")
    victims: dict[str, Callable[[], Sequence[int]]] = {
        "an instance between calls": lambda: [instance(platform, "f0")],
        "the pre-forked workers": lambda: preforked(platform),
        "the zygote": lambda: [zygote(platform)],
        "the daemon": lambda: processes.of_pool(platform)[:1],
        "daemon and zygote": lambda: processes.of_pool(platform)[:2],
    }
    took = {}
    for number, (what, find) in enumerate(victims.items(), 2):
        assert wait_until(lambda: len(preforked(platform)) == 2)
        pids = find()
        stop(*pids)
        took[what] = ask(platform, "f0", f"f{number}")  # a warm one and a cold one
        assert wait_until(lambda pids=pids: not any(map(alive, pids))), what  # type: ignore[misc]
    assert max(took.values()) < HEALED, took
    assert wait_until(lambda: platform.state == "ok")


def test_nobody_is_killed_after_all_were_frozen(artifact: Path) -> None:
    """As in a virtual machine that was paused: processes go on in any order, and find each other as they were."""
    script = (
        "import sys, time; from pathlib import Path; from faasmoe.platforms.base import Call, FunctionSpec\n"
        "from faasmoe.platforms.local.platform import LocalPlatform\n"
        "p = LocalPlatform(); p.deploy([FunctionSpec('f', 'tests.functions:echo', Path(sys.argv[1]))])\n"
        "p.invoke_many([Call('f', [b'x'])], time.monotonic() + 60); print('called', flush=True)\n"
        "while True: p.invoke_many([Call('f', [b'x'])], time.monotonic() + 3); time.sleep(0.001)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(artifact)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == b"called\n"
        family = psutil.Process(owner.pid)
        # daemon, zygote, instance, two pre-forked workers
        assert wait_until(lambda: len(family.children(recursive=True)) == 5)
        pids = [owner.pid, *(child.pid for child in family.children(recursive=True))]
        stop(*pids)
        time.sleep(3.5)  # longer than the deadline of a call
        random.shuffle(pids)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        time.sleep(1.5)
        assert all(map(alive, pids))
    finally:
        owner.kill()
        owner.communicate()


# What dies, and what cannot be started


def test_a_daemon_that_cannot_be_started_for_a_while(
    platform: LocalPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(platform, "f0")
    assert platform.state == "ok"
    real, refused = supervisor.start, []

    def start(*arguments: Any, **options: Any) -> Any:
        if len(refused) < 4:
            refused.append(platform.state)
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real(*arguments, **options)

    monkeypatch.setattr(supervisor, "start", start)
    os.kill(processes.of_pool(platform)[0], signal.SIGKILL)
    assert ask(platform, "f0", "f1") < HEALED
    assert refused == ["starting"] * 4
    assert wait_until(lambda: platform.state == "ok")
    assert platform.why == ""


def test_a_daemon_that_dies_again_and_again_comes_back(platform: LocalPlatform) -> None:
    for _ in range(6):
        os.kill(processes.of_pool(platform)[0], signal.SIGKILL)
    assert ask(platform, "f0") < HEALED


def test_a_pool_without_daemon_is_closed_at_once(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    platform = LocalPlatform()
    daemon = processes.of_pool(platform)[0]
    monkeypatch.setattr(supervisor, "start", refuse)
    os.kill(daemon, signal.SIGKILL)
    assert wait_until(lambda: "Resource temporarily unavailable" in platform.why)
    began = time.monotonic()
    platform.close()
    assert time.monotonic() - began < 2
    with pytest.raises(PlatformError, match="it was closed"):
        platform.status()
    assert not platform.folder.exists()


def test_a_pool_with_a_stopped_daemon_is_closed_at_once() -> None:
    platform = LocalPlatform()
    pids = processes.of_pool(platform)
    stop(pids[0])
    began = time.monotonic()
    platform.close()
    assert time.monotonic() - began < 3
    assert wait_until(lambda: not any(map(alive, pids)))


def test_a_zygote_that_is_killed_while_it_starts_is_started_again(platform: LocalPlatform) -> None:
    for _ in range(3):
        os.kill(zygote(platform), signal.SIGKILL)
        assert wait_until(lambda: bool(psutil.Process(processes.of_pool(platform)[0]).children()))
    assert ask(platform, "f0") < HEALED
    assert wait_until(lambda: platform.state == "ok")


def test_few_descriptors_are_shared_by_many_functions(artifact: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from faasmoe.platforms.base import Call, FunctionSpec\n"
        "from faasmoe.platforms.local.platform import LocalPlatform\n"
        "with LocalPlatform() as p:\n"
        "    p.deploy([FunctionSpec(f'f{i}', 'tests.functions:echo', Path(sys.argv[1])) for i in range(40)])\n"
        "    replies = p.invoke_many([Call(f'f{i}', [b'x']) for i in range(10)], time.monotonic() + 60)\n"
        "    for i in range(40): p.invoke_many([Call(f'f{i}', [b'x'])], time.monotonic() + 60)\n"
        "    print(sum(function.evictions for function in p.status().functions))\n"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))

    command = [sys.executable, "-c", script, str(artifact)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
    assert len(done.stderr) < 2000


# What callers suspect


def test_an_instance_that_a_caller_suspects_must_show_that_it_works(
    platform: LocalPlatform, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    platform.deploy([spec("waits", "patient", naming(tmp_path / "pipe"))])
    caller = Activator(platform.folder)
    with LocalPlatform(folder=platform.folder) as other, ThreadPoolExecutor(1) as executor:
        asked = executor.submit(other.invoke_many, [Call("waits", [b"x"])], soon())
        assert wait_until(lambda: platform.status().functions[-1].state == "busy")
        (path,) = (path for path in platform.folder.glob("*.sock") if path.name != "daemon.sock")
        assert caller.report_suspect(str(path), 0.001)
        assert wait_until(lambda: platform.status().functions[-1].deaths == 1, 10)
        with (tmp_path / "pipe").open("r+b", buffering=0) as pipe:
            pipe.write(b".")
            assert bytes(asked.result(60)[0]) == b"x."  # by another
    caller.close()


# What is sent to all, and what all can see


def test_signals_to_the_whole_group_are_left_to_the_server(platform: LocalPlatform) -> None:
    ask(platform, "f0")
    assert wait_until(lambda: len(processes.of_pool(platform)) == 5)
    pids = [pid for pid in processes.of_pool(platform) if pid != os.getpid()]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        for pid in pids:
            os.kill(pid, number)
    ask(platform, "f0", "f1")
    assert set(pids) <= set(processes.of_pool(platform))


def test_nobody_has_the_servers_secrets(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAASMOE_DATABASE", "PGPASSWORD", "HF_TOKEN"):
        monkeypatch.setenv(name, "postgresql://user:hidden@host/name")
    with LocalPlatform(LocalOptions()) as platform:
        platform.deploy([spec("f0", "echo", artifact)])
        ask(platform, "f0")
        knowing = [
            pid for pid in processes.of_pool(platform) if b"hidden" in Path(f"/proc/{pid}/environ").read_bytes()
        ]
        assert len(processes.of_pool(platform)) >= 3
        assert knowing == []


def test_clients_do_not_learn_where_files_lie(platform: LocalPlatform, tmp_path: Path) -> None:
    platform.deploy([spec("gone", "echo", tmp_path / "gone"), spec("prisoner", "prisoner", tmp_path)])
    with pytest.raises(PlatformError, match="it cannot be loaded: FileNotFoundError") as error:
        ask(platform, "gone")
    assert str(tmp_path) not in str(error.value)
    with pytest.raises(FunctionError, match="PermissionError") as failure:
        platform.invoke_many([Call("prisoner", [str(tmp_path / "escape").encode()])], soon())
    assert str(tmp_path) not in str(failure.value)
