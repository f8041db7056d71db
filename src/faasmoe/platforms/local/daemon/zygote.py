"""The interface between the daemon and its zygote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from faasmoe.platforms.local.protocol.payloads import Duty
from faasmoe.util.forkserver.messages import Ended, Forked, ForkFailed

ChildEvent = Forked | ForkFailed | Ended
# called with each event of a child, and with None when a zygote that was ready has ended
Listener = Callable[[ChildEvent | None], None]


class Zygote(Protocol):
    """Forks instances. `zygote_client.ZygoteClient` is the one that runs in a process; see there."""

    up: bool
    owes: bool
    trouble: str

    @property
    def pid(self) -> int | None:
        """Process id of the zygote, None if there is none."""

    async def ready(self) -> None:
        """Return when the zygote takes orders. Raises `ZygoteFailed`."""

    def start(self, duty: Duty, descriptors: Sequence[int]) -> int:
        """Have an instance forked. Returns the number that events have. Raises `OSError`."""

    def kill(self, number: int) -> None:
        """Have an instance killed. One that has ended is fine."""

    def ping(self) -> None:
        """Ask for a heartbeat."""

    def memory(self) -> int:
        """Bytes that the zygote and the daemon have in memory."""

    def end(self, cause: str) -> None:
        """End the zygote because of `cause`."""

    def close(self) -> None:
        """End the zygote for good."""


StartZygote = Callable[[Sequence[str], Listener], Zygote]
