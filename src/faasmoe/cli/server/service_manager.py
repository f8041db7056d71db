"""Tells systemd what a service does: its notification protocol (sd_notify(3)), over a Unix datagram socket."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Self

from faasmoe.errors import SHUTTING_DOWN

log = logging.getLogger(__name__)

_START_SECONDS = 10.0  # between heartbeats while the service starts
_TELL_SECONDS = 1.0  # that a manager may take to make room for a message
_PATIENCE = 30.0  # seconds that each of them gives it


class ServiceManager:
    """Whoever has started this process and wants to know its state; or nobody, and then nothing is done.

    `watchdog` is after how many seconds without a heartbeat the manager restarts it, None for never.
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        self._address = address
        self._started = False
        self._complained = False
        self.watchdog = watchdog

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Self:
        """Take the service manager from the environment. The variables are removed: children must not use them."""
        names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        address, microseconds, process = (environment.pop(name, None) for name in names)
        watchdog = None
        if microseconds is not None and process in (None, str(os.getpid())):
            with suppress(ValueError):
                watchdog = int(microseconds) / 1e6 or None
        return cls(address, watchdog)

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._tell(f"STATUS={text}")

    def ready(self) -> None:
        """Requests are taken."""
        self._started = True
        self._tell("READY=1", "STATUS=requests are taken")

    def stopping(self, seconds: float) -> None:
        """Announce that the service ends within `seconds`."""
        self._started = True
        self._tell("STOPPING=1", f"STATUS={SHUTTING_DOWN}", f"EXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")

    async def beat(self) -> None:
        """Give signs of life, for ever. Runs in the loop that is watched, so that one that is stuck gives none."""
        if self._address is None:
            return
        while True:
            if not self._started:  # a large model may load for long
                self._tell(f"EXTEND_TIMEOUT_USEC={_PATIENCE * 1e6:.0f}")
            if self.watchdog is not None:
                self._tell("WATCHDOG=1")
            await asyncio.sleep(
                _START_SECONDS if self.watchdog is None else min(self.watchdog / 2, _START_SECONDS)
            )

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_TELL_SECONDS)
                sender.sendto("\n".join(lines).encode(), address)
        except (OSError, ValueError) as error:  # the service goes on; systemd does what its unit says
            if not self._complained:
                log.warning("the service manager cannot be notified: %s", type(error).__name__)
            self._complained = True
