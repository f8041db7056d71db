"""Looks at a server twice a second: what it says of its health, how much it logs, and what it takes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import httpx
import psutil

from tests.chaos.served import Served

OK = "ok"
_EVERY = 0.5  # seconds
_PATIENCE = 2.0  # seconds that /health may take


class Look(NamedTuple):
    """One look."""

    at: float  # monotonic
    health: str  # what it says, or "" if it says nothing
    logged: int  # bytes, in all


class Watch:
    """Looks while it is entered. `served` gives the server of the moment."""

    def __init__(self, served: Callable[[], Served]) -> None:
        self._served = served
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.looks: list[Look] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        with httpx.Client(timeout=_PATIENCE, trust_env=False) as client:
            while not self._over.wait(_EVERY):
                served, health = self._served(), ""
                with suppress(httpx.HTTPError, ValueError, KeyError):
                    answer = client.get(f"{served.url}/health")
                    health = OK if answer.status_code == 200 else str(answer.json()["status"])
                with suppress(FileNotFoundError):
                    self.looks.append(Look(time.monotonic(), health, served.log.stat().st_size))


def most_logged(looks: list[Look], window: float = 60.0) -> int:
    """Most bytes that were logged within so many seconds."""
    most, first = 0, 0
    for look in looks:
        while looks[first].at < look.at - window:
            first += 1
        most = max(most, look.logged - looks[first].logged)
    return most


class Gauge(NamedTuple):
    """What the gateway and the daemon take together."""

    descriptors: int
    threads: int
    memory: int  # bytes that are its own

    @classmethod
    def of(cls, pids: Sequence[int]) -> Gauge | None:
        """The sum. None if one of them is gone."""
        try:
            processes = [psutil.Process(pid) for pid in pids]
            return cls(
                sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
                sum(process.num_threads() for process in processes),
                sum(process.memory_full_info().uss for process in processes),
            )
        except (psutil.Error, OSError):
            return None
