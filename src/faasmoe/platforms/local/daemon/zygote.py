"""What the daemon needs of a zygote, and how a daemon gets one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from faasmoe.platforms.local.protocol.payloads import Duty
from faasmoe.util.forkserver.messages import Ended, Forked, ForkFailed

ChildEvent = Forked | ForkFailed | Ended
# hears of each event of a child, and None when a zygote that was ready has ended
Listener = Callable[[ChildEvent | None], None]


class Zygote(Protocol):
    """Forks instances. `zygote_client.ZygoteClient` is the one that runs in a process; see there."""

    up: bool
    owes: bool
    trouble: str

    @property
    def pid(self) -> int | None:
        """Of its process."""

    async def ready(self) -> None:
        """Returns when orders are taken. Raises `ZygoteFailed`."""

    def start(self, duty: Duty, descriptors: Sequence[int]) -> int:
        """Have an instance forked. Returns the number that events have. Raises `OSError`."""

    def kill(self, number: int) -> None:
        """Have an instance killed. One that has ended is fine."""

    def ping(self) -> None:
        """Ask for a sign of life."""

    def memory(self) -> int:
        """Bytes that the zygote and the daemon have in memory."""

    def end(self, cause: str) -> None:
        """End the zygote because of `cause`."""

    def close(self) -> None:
        """End the zygote for good."""


StartZygote = Callable[[Sequence[str], Listener], Zygote]
