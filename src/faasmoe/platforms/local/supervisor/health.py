"""Whether a pool can do its work: what its supervisor knows of the daemon, and the daemon of the zygote."""

from __future__ import annotations

from faasmoe.platforms.base import State


class PoolHealth:
    """Changed by the supervisor's thread, read by any: the one attribute that is read is replaced as a whole."""

    def __init__(self) -> None:
        self._now: tuple[State, str] = "starting", "the daemon is starting"

    @property
    def state(self) -> State:
        """`ok`, or `starting`: calls of cold functions wait."""
        return self._now[0]

    @property
    def why(self) -> str:
        """Why it is not `ok`; empty if it is."""
        return self._now[1]

    def first(self) -> None:
        """The first daemon has started; nothing has failed yet."""
        self._now = "ok", ""

    def failed(self, why: str) -> None:
        """The daemon has ended, or does not start. What is started in its place must answer before all is well."""
        self._now = "starting", why

    def answered(self, trouble: str) -> None:
        """The daemon lives. `trouble`: why it cannot start instances; empty if it can."""
        self._now = ("starting", trouble) if trouble else ("ok", "")

    def rests(self) -> None:
        """The daemon has ended because nobody needs it."""
        self._now = "ok", ""
