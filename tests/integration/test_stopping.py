"""How a server starts and stops: the real process, told by signals, and what it tells systemd."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from faasmoe.cli.server.last_resort import LATE
from faasmoe.cli.server.service_manager import ServiceManager
from tests.integration.test_orchestrator_process import LONG
from tests.streams import data_of
from tests.waiting import alive, wait_until


@dataclass
class Starting:
    """A server from the moment it has been started."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    database: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=30)

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def everybody(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def starting(folder: Path, *options: str, **environment: str) -> Iterator[Starting]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "faasmoe.cli.main", "serve", "--port", str(port), *options]
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "FAASMOE_DATABASE": f"sqlite:///{folder}/tenants.db"}
    variables |= environment
    log = folder / "log"
    with log.open("w") as written:
        process = subprocess.Popen(
            command, stdout=written, stderr=subprocess.STDOUT, text=True, env=variables, start_new_session=True
        )
    made = Starting(process, port, log, folder / "tenants.db")
    try:
        yield made
    finally:
        children = made.everybody() if process.poll() is None else []
        process.kill()
        process.wait(30)
        for child in children:
            if child.is_running():
                child.kill()


def stream(server: Starting, began: threading.Event, found: list[str], tokens: int = LONG) -> None:
    """Adds events to `found` as they come."""
    body = {"model": "faasmoe-demo", "prompt": "It was", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=100) as answer:
        for event in data_of(answer.iter_lines()):
            found.append(event)
            began.set()


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """What systemd would listen with."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        yield manager


def told(manager: socket.socket) -> list[str]:
    """All that has come so far."""
    found: list[str] = []
    with suppress(BlockingIOError):
        while True:
            found += manager.recv(4096).decode().splitlines()
    return found


def listen(manager: socket.socket, notes: list[str]) -> None:
    """Adds what is told, until an empty message: who does not read holds up the server."""
    manager.settimeout(200)
    while packet := manager.recv(4096):
        notes += packet.decode().splitlines()


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told_over_either_kind_of_socket(tmp_path: Path, abstract: bool) -> None:
    name = f"faasmoe-test-{os.getpid()}"
    with listening(f"\0{name}" if abstract else str(tmp_path / "notify")) as manager:
        address = f"@{name}" if abstract else str(tmp_path / "notify")
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid())}
        service = ServiceManager.take(environment)
        assert not environment
        assert service.watchdog == 0.2
        service.ready()
        service.stopping(35)
        assert told(manager) == [
            "READY=1",
            "STATUS=requests are taken",
            "STOPPING=1",
            "STATUS=the server is shutting down",
            "EXTEND_TIMEOUT_USEC=35000000",
        ]

        async def beat() -> None:
            beating = asyncio.create_task(service.beat())
            seen: list[str] = []
            while len(seen) < 3:
                await asyncio.sleep(0.02)
                seen += told(manager)
            assert set(seen) == {"WATCHDOG=1"}
            time.sleep(0.5)  # noqa: ASYNC251 - the loop is stuck
            assert told(manager) == []
            beating.cancel()

        asyncio.run(beat())


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "/gone"},
        {"NOTIFY_SOCKET": "x" * 500},
        {"NOTIFY_SOCKET": "/gone", "WATCHDOG_USEC": "x"},
        {"NOTIFY_SOCKET": "/gone", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_a_service_goes_on_without_a_manager(environment: dict[str, str]) -> None:
    service = ServiceManager.take(environment)
    assert service.watchdog is None
    service.ready()
    service.stopping(1)


@contextmanager
def watched(folder: Path, runtime: Path, pool: Executor) -> Iterator[tuple[Starting, list[str]]]:
    """A server with a service manager, and what the manager is told."""
    address = str(folder / "notify")
    notes: list[str] = []
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "500000", "XDG_RUNTIME_DIR": str(runtime)}
    with listening(address) as manager, starting(folder, "--drain-seconds", "100", **environment) as server:
        assert wait_until(server.answers, 60)
        check_starting(server)
        pool.submit(listen, manager, notes)
        try:
            yield server, notes
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"", address)


def check_starting(server: Starting) -> None:
    assert server.get("/health").json()["status"] == "starting"  # at once, while the model is loaded
    assert (server.get("/health").status_code, server.get("/ready").json()["ready"]) == (503, False)
    refused = server.get("/v1/models")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")


def check_running(server: Starting) -> None:
    health = server.get("/health")
    assert (health.status_code, health.json()["status"], health.json()["open"]) == (200, "ok", True)
    head = httpx.head(f"{server.url}/v1/models")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(server.get("/v1/models").content)


def check_draining(server: Starting) -> None:
    assert wait_until(lambda: server.get("/ready").status_code == 503)
    assert server.get("/health").json()["status"] == "stopped"
    refused = server.get("/v1/models")
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    assert int(refused.headers["retry-after"]) > 0


def begin(pool: Executor, server: Starting, tokens: int = LONG) -> tuple[Future[None], list[str]]:
    """A stream that has begun, and its events so far."""
    began, events = threading.Event(), list[str]()
    streamed = pool.submit(stream, server, began, events, tokens)
    assert began.wait(100)
    return streamed, events


def test_a_server_starts_and_drains_in_order(tmp_path: Path, runtime: Path) -> None:
    with ThreadPoolExecutor() as pool, watched(tmp_path, runtime, pool) as (server, notes):
        assert wait_until(lambda: "READY=1" in notes, 100)
        assert {"WATCHDOG=1", "STATUS=loading faasmoe-demo"} <= set(notes)
        check_running(server)
        streamed, events = begin(pool, server)
        ending, short = begin(pool, server, tokens=30)
        everybody = server.everybody()

        server.process.send_signal(signal.SIGTERM)
        check_draining(server)
        so_far = len(events)
        assert wait_until(lambda: len(events) > so_far + 2)  # what runs goes on
        ending.result(100)
        assert short[-1] == "[DONE]"
        assert wait_until(lambda: "STOPPING=1" in notes)

        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        streamed.result(10)
        assert json.loads(events[-1])["error"]["message"] == "the server is shutting down"
        assert psutil.wait_procs(everybody, timeout=10)[1] == []
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "stopped\n" in log
    assert list((runtime / "faasmoe").iterdir()) == []
    with closing(sqlite3.connect(server.database)) as database:
        rows = database.execute(
            "SELECT completion_tokens, orchestrator_cpu_seconds, gb_seconds FROM requests "
            "WHERE outcome <> 'length'"
        )
        ((tokens, cpu_seconds, gb_seconds),) = rows.fetchall()
    assert tokens >= so_far
    assert min(cpu_seconds, gb_seconds) > 0  # it was asked what it has used before it was ended


@pytest.mark.alone  # it judges how soon
def test_a_server_whose_processes_are_all_frozen_ends_in_time(tmp_path: Path) -> None:
    with starting(tmp_path, "--drain-seconds", "1") as server, ThreadPoolExecutor() as pool:
        assert wait_until(lambda: server.answers() and server.get("/ready").status_code == 200, 100)
        streamed, events = begin(pool, server)
        everybody = server.everybody()
        for process in everybody:
            process.send_signal(signal.SIGSTOP)
        told_at = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        assert time.monotonic() - told_at < 1 + 5
        streamed.result(10)
        assert json.loads(events[-1])["error"]["code"] == "engine_stopped"
        assert psutil.wait_procs(everybody, timeout=10)[1] == []
    assert "Traceback" not in server.log.read_text()


STUCK = """
import ctypes, os, pathlib, subprocess, sys, threading, time
from faasmoe.cli.server import last_resort
from faasmoe.cli.server import signals
last_resort.CLOSE_SECONDS = 0.3
last_resort.LastResort(signals.ENDING).start()
signals.unwind()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
mutex = ctypes.create_string_buffer(64)
lock = ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)

def tell():
    asleep = 0
    while asleep < 5:  # so long that the main thread does not merely wait for its turn
        time.sleep(0.02)
        state = pathlib.Path(f"/proc/self/task/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
    print(child.pid, flush=True)

threading.Thread(target=tell).start()
lock(mutex)  # for ever; no handler of a signal runs
"""


def test_a_process_that_hears_no_signal_ends_in_time_with_its_children() -> None:
    command = [sys.executable, "-c", STUCK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as stuck:
        assert stuck.stdout is not None
        assert stuck.stderr is not None
        child = int(stuck.stdout.readline())
        stuck.send_signal(signal.SIGTERM)
        assert stuck.wait(30) == LATE
        assert "has not ended in time" in stuck.stderr.read()
        assert wait_until(lambda: not alive(child))
