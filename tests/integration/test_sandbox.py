"""What a process can no longer do in the sandbox, and what it still can."""

from __future__ import annotations

import mmap
import os
import platform
import resource
import socket
import sys
import threading
from pathlib import Path

import pytest
import torch

from faasmoe.platforms.local.instance.sandbox import MACHINES, Sandbox, prepare
from tests.integration.sandboxes import (
    REFUSED,
    all_inside,
    attempt,
    attribute_changes,
    changes,
    close,
    opened,
    run_inside,
    status_of_self,
    syscall,
    untouched,
)

# 3.12 and later: of a process with threads, which torch may have made
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
X32 = 0x40000000


def test_all_of_it_works_outside(folder: Path) -> None:
    for number, name in enumerate(changes(folder)):
        own = folder / str(number)
        (own / "sub").mkdir(parents=True)
        (own / "file").write_bytes(b"weights")
        assert attempt(changes(own)[name]) in {None, "done"}, name


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK])
def test_no_socket_can_be_made(kept: Sandbox, family: int) -> None:
    assert run_inside(kept, lambda: socket.socket(family, socket.SOCK_DGRAM).close()) == "EPERM"


def test_a_given_socket_cannot_be_turned_elsewhere(kept: Sandbox, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as given, socket.socket(socket.AF_UNIX) as outside:
        outside.bind(str(tmp_path / "outside"))
        outside.listen()
        said = all_inside(
            kept,
            {
                "connect": lambda: given.connect(str(tmp_path / "outside")),
                "bind": lambda: given.bind(str(tmp_path / "mine")),
                "listen": outside.listen,
                "datagrams": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
            },
        )
    assert set(said.values()) == {"EPERM"}, said


def test_no_file_can_be_changed(kept: Sandbox, folder: Path) -> None:
    said = all_inside(kept, changes(folder) | attribute_changes(folder))
    assert {name for name, result in said.items() if result not in REFUSED} == set(), said
    assert untouched(folder)


def test_no_program_and_no_process_can_be_started(kept: Sandbox) -> None:
    said = all_inside(
        kept,
        {
            "exec": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
            "fork": lambda: os.fork() or os._exit(3),
            "spawn": lambda: os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}),
        },
    )
    assert {name for name, result in said.items() if result not in REFUSED} == set(), said


def test_other_processes_are_out_of_reach(kept: Sandbox) -> None:
    if kept.landlock_abi < 6:
        pytest.skip("this kernel's Landlock cannot scope signals")
    parent = os.getpid()
    said = all_inside(
        kept,
        {
            "signal": lambda: os.kill(parent, 0),
            "memory": lambda: opened(f"/proc/{parent}/mem", os.O_RDONLY),
            "limits": lambda: resource.prlimit(parent, resource.RLIMIT_CPU, (1, 1)),
            "itself": lambda: os.kill(os.getpid(), 0),
        },
    )
    assert said.pop("itself") is None
    assert {name for name, result in said.items() if result not in REFUSED} == set(), said


def test_calls_of_another_convention_are_refused(kept: Sandbox) -> None:
    number = MACHINES[platform.machine()][1]["socket"]
    assert run_inside(kept, lambda: syscall(X32 + number, 1, 1, 0)) == "EPERM"


def test_limits_cannot_be_lifted(kept: Sandbox) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert run_inside(kept, lambda: resource.setrlimit(resource.RLIMIT_DATA, unlimited)) in {"EPERM", "ValueError"}
    assert run_inside(kept, lambda: resource.getrlimit(resource.RLIMIT_CORE)) == (0, 0)


def test_an_allocation_that_runs_away_fails_here() -> None:
    headroom = 64 << 20

    def allocate() -> tuple[int, str]:
        fits = len(bytearray(headroom // 4))
        return fits, attempt(lambda: len(bytearray(2 * headroom)))

    assert run_inside(prepare(headroom), allocate) == (headroom // 4, "MemoryError")


def test_no_privileges_no_core_and_first_to_go(kept: Sandbox) -> None:
    said = all_inside(
        kept,
        {
            "status": status_of_self,
            "core": lambda: resource.getrlimit(resource.RLIMIT_CORE),
            "dumped": lambda: int(Path("/proc/self/coredump_filter").read_text(), 16),
            "score": lambda: int(Path("/proc/self/oom_score_adj").read_text()),
        },
    )
    assert (said["status"]["NoNewPrivs"], said["status"]["Seccomp"]) == ("1", "2")
    assert said["core"] == (0, 0)
    assert said["dumped"] in {0, "ENOENT"}
    assert said["score"] >= 800


def test_files_can_be_read_and_mapped(kept: Sandbox, folder: Path) -> None:
    def read() -> tuple[bytes, bytes, list[str]]:
        with (folder / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            return file.read(), mapped[:], sorted(os.listdir(folder))

    assert run_inside(kept, read) == (b"weights", b"weights", ["file", "sub"])


def test_open_descriptors_and_dev_null_go_on_working(kept: Sandbox, tmp_path: Path) -> None:
    read, write = os.pipe()
    errors = os.open(tmp_path / "errors", os.O_WRONLY | os.O_CREAT, 0o600)
    stderr = os.dup(2)
    os.dup2(errors, 2)
    try:
        said = all_inside(
            kept,
            {
                "pipe": lambda: os.write(write, b"said"),
                "stderr": lambda: os.write(2, b"cried"),
                "null": lambda: opened(os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
                "memory": lambda: close(os.memfd_create("anything")),
            },
        )
        assert os.read(read, 16) == b"said"
    finally:
        os.dup2(stderr, 2)
        close(stderr, errors, read, write)
    assert said == {"pipe": 4, "stderr": 5, "null": "done", "memory": "done"}
    assert (tmp_path / "errors").read_bytes() == b"cried"


def test_calls_are_accepted_on_a_given_listener(kept: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "shared").write_bytes(b"descriptor")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(str(tmp_path / "listener"))
        listener.listen()
        caller.connect(str(tmp_path / "listener"))
        with (tmp_path / "shared").open("rb") as shared:
            socket.send_fds(caller, [b"ping"], [shared.fileno()])

        def serve() -> bytes:
            connection, _ = listener.accept()
            with connection:
                request, descriptors, _, _ = socket.recv_fds(connection, 16, 1)
                connection.sendmsg([request, b" pong"])
                return os.read(descriptors[0], 16)

        assert run_inside(kept, serve) == b"descriptor"
        assert caller.recv(16) == b"ping pong"


def test_threads_and_arithmetic_work(kept: Sandbox) -> None:
    def compute() -> tuple[list[int], list[list[float]]]:
        done: list[int] = []
        threads = [threading.Thread(target=done.append, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.send(b"\3")
            done.append(theirs.recv(1)[0])
        torch.set_num_threads(2)
        big = torch.ones(256, 256)
        assert (big @ big == 256).all()
        return sorted(done), (torch.arange(4.0).view(2, 2) @ torch.eye(2)).tolist()

    assert run_inside(kept, compute) == ([0, 1, 2, 3], [[0.0, 1.0], [2.0, 3.0]])


def test_preparing_binds_nobody(folder: Path) -> None:
    before = status_of_self()
    prepare()
    after = status_of_self()
    for field in ("NoNewPrivs", "Seccomp"):
        assert after[field] == before[field]
    assert opened(folder / "new", os.O_WRONLY | os.O_CREAT) == "done"
    assert run_inside(Sandbox(()), lambda: opened(folder / "newer", os.O_WRONLY | os.O_CREAT)) == "done"
