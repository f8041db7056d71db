"""What runs orchestrators for an agent, which itself knows no model: a contract."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class HostedOrchestrator(Protocol):
    """An orchestrator that was forked on this machine."""

    socket: socket.socket  # over which it speaks with the gateway
    pid: int

    def end(self) -> None:
        """Close the socket, and see that the process ends. Takes two seconds at most."""


class OrchestratorHost(Protocol):
    """For all threads."""

    slots: int  # orchestrators that may run at a time

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""

    def load(self, start: bytes, checkpoint: Path, pool: Path, is_wanted: Callable[[], bool]) -> None:
        """Load the model, and forget an earlier one with its orchestrators. Waits until that is done.

        `start` is as the server has sent it; the folders are those of this machine. It is given up, soon after
        `is_wanted` says so. Raises `FaasmoeError` or `OSError`.
        """

    def fork(self) -> HostedOrchestrator:
        """Start an orchestrator of the model. Raises `FaasmoeError` or `OSError`."""

    def unload(self) -> None:
        """End the orchestrators and forget the model."""

    def close(self) -> None:
        """Unload, for good. May be called twice."""
