"""Calls that wait for an instance, and what the daemon was asked for them."""

from __future__ import annotations

from faasmoe.platforms.local.client.control import Activator
from faasmoe.platforms.local.client.pending_call import PendingCall
from faasmoe.platforms.local.protocol.messages import Activated, NotActivated, Wanted

EARLY = 1.0  # seconds; a daemon that gives up so much before a caller's deadline did not know of it


class WaitingCalls:
    """Has the daemon activate an instance for each; another daemon is asked again for all. For one thread."""

    def __init__(self, activator: Activator) -> None:
        self.calls: dict[int, PendingCall] = {}  # by index
        self._unasked: dict[int, Wanted] = {}  # of these, those that the daemon was not asked for
        self._activator = activator

    @property
    def unasked(self) -> bool:
        """Whether the daemon must still be asked for some."""
        return bool(self._unasked)

    def fileno(self) -> int:
        """Readable when there is an answer. -1 while there is no connection."""
        return self._activator.fileno()

    def add(self, pending: PendingCall, lost: str | None) -> None:
        """A call needs an instance. `lost`: the path of the one that it has lost."""
        pending.connection, pending.waited, pending.patience = None, 0.0, 0.0
        self.calls[pending.index] = pending
        self._unasked[pending.index] = Wanted(pending.index, pending.function, lost)

    def request(self, left: float) -> bool:
        """Ask the daemon, if there is one, for instances that it was not asked for, within `left` seconds.

        Returns False if that takes a descriptor and this process has none.
        """
        if not self._unasked:
            return True
        # the daemon gives up a little earlier than its caller: it knows why there is no instance
        if self._activator.request(list(self._unasked.values()), left - min(EARLY / 5, left / 5)):
            self._unasked.clear()
            return True
        self._ask_again()
        return not self._activator.exhausted

    def answer(self) -> tuple[PendingCall, Activated | NotActivated] | None:
        """The next call that waits no more, and the answer to it; None if the daemon was lost."""
        answer = self._activator.answer()
        if answer is None:
            self._ask_again()
            return None
        return self.calls.pop(answer.number), answer

    def suspect(self, pending: PendingCall) -> None:
        """Tell the daemon that the instance of a call, which is not one of these, may hang."""
        if pending.connection is not None:
            expected = pending.connection.seconds(pending.work)
            if not self._activator.report_suspect(pending.connection.path, expected):
                self._ask_again()

    def _ask_again(self) -> None:
        """The daemon is gone, and with it all that it was asked for."""
        asked = {index: Wanted(index, pending.function) for index, pending in self.calls.items()}
        self._unasked = {**asked, **self._unasked}

    def abandon(self) -> None:
        """Want no instances any more."""
        self.calls.clear()
        self._unasked.clear()
        self._activator.close()
