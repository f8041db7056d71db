"""Turns of processes that share the tests (`pytest -n 2`): a test that is marked `alone` runs while no other does."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """Locks in a folder that all processes of one run have in common. Each process makes an object of its own."""

    def __init__(self, folder: Path) -> None:
        self._gate = (folder / "gate").open("w")
        self._room = (folder / "room").open("w")

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """A test's turn: it comes when no test runs `alone` elsewhere, and for such a one when none runs at all."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)  # held while waiting, so that who comes later does not go first
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give up the locks."""
        self._gate.close()
        self._room.close()
