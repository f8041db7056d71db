"""The steward: keeps the catalogues of client and nodes alike."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.client.membership import Membership
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.messages import (
    AskCatalogue,
    CatalogueEntry,
    CatalogueReport,
    Failure,
    Finished,
    Install,
)
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.closeable import Closeable

ORDER_SECONDS = 120.0  # within which an order is carried out


class Steward(Closeable):
    """A thread that asks nodes with other catalogues for theirs. In the head it also tells them what is new."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._thread = threading.Thread(target=self._run, name="steward", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Close the membership, and wait for the thread. May be called twice."""
        self._membership.close()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._membership.closed:
            self.step(None)

    def step(self, seconds: float | None) -> None:
        """Do what there is to do, or wait for it so long at most; None: without end."""
        stale, news = self._membership.errands(seconds)
        for link in stale:
            self._sync(link)
        for link in self._membership.present() if news else ():
            self._tell(link, news)

    def _sync(self, link: NodeLink) -> None:
        """Learn what the node knows better; the head tells it what it does not know. Then it can take calls."""
        try:
            report = link.ask(AskCatalogue(0), CatalogueReport, ORDER_SECONDS)
        except Lost as error:
            link.cut(str(error), isinstance(error, LinkRefused))
            return
        if isinstance(report, Failure):
            link.cut(report.cause, refused=True)
            return
        news = self._membership.learn(report.entries)
        if news and not self._membership.head:
            return  # the head will tell it, and a heartbeat us
        if not news or self._tell(link, news):
            self._membership.ready_now(link)

    def _tell(self, link: NodeLink, news: Sequence[CatalogueEntry]) -> bool:
        """A node that does not take what all others have taken is of no use."""
        try:
            answer = link.ask(Install(tuple(news)), Finished, ORDER_SECONDS)
        except Lost as error:
            link.cut(str(error), isinstance(error, LinkRefused))
            return False
        if isinstance(answer, Failure):
            link.cut(answer.cause, refused=True)
        return not isinstance(answer, Failure)
