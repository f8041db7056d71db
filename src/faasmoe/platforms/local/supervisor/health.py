"""The health of a pool: the supervisor's view of the daemon, and the daemon's of the zygote."""

from __future__ import annotations

from faasmoe.platforms.base import State


class PoolHealth:
    """Changed by the supervisor's thread and read by any thread: state and reason are replaced together."""

    def __init__(self) -> None:
        self._now: tuple[State, str] = "starting", "the daemon is starting"

    @property
    def state(self) -> State:
        """`ok`, or `starting`, in which calls of cold functions wait."""
        return self._now[0]

    @property
    def why(self) -> str:
        """The reason why the pool is not `ok`; "" if it is."""
        return self._now[1]

    def first(self) -> None:
        """The first daemon is ready."""
        self._now = "ok", ""

    def failed(self, why: str) -> None:
        """The daemon was lost or cannot be started. The pool is `ok` again once the next one has answered."""
        self._now = "starting", why

    def answered(self, trouble: str) -> None:
        """The daemon has answered. `trouble`: why it cannot start instances; "" if it can."""
        self._now = ("starting", trouble) if trouble else ("ok", "")

    def rests(self) -> None:
        """The daemon has stopped because it was idle."""
        self._now = "ok", ""
