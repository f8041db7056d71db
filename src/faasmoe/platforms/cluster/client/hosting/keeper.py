"""Keeps one node able to run orchestrators: tells it what to load, where the pool is, and renews its certificate."""

from __future__ import annotations

import time
from collections.abc import Callable

from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.authority.authority import ORCHESTRATOR_RENEWED
from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.protocol import hosting_messages
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.hosting_messages import (
    AskHosting,
    HostingReport,
    PrepareOrchestrators,
    TellPool,
)
from faasmoe.util.backoff import Backoff

Certify = Callable[[bytes, str], tuple[bytes, bytes]]
"""Makes the certificate of a node's orchestrators, of a signing request and the node's name; and the authority's."""

_SECONDS = 10.0  # for an answer
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds, before a node that could not take it is told again


class HostingKeeper:
    """For one thread. It knows one incarnation of a node, over one connection."""

    def __init__(
        self,
        link: NodeLink,
        platform: str,
        pool: str,
        certify: Certify,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`platform` and `pool` are names. Raises `Lost`."""
        self.incarnation = link.incarnation
        self._link = link
        self._names = platform, pool
        self._certify = certify
        self._clock = clock
        self._told: tuple[NodeAddress, ...] | None = None
        self._prepared: PrepareOrchestrators | None = None
        self._certified: float | None = None  # instant
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, clock=clock)
        self._connection: Connection = link.open("hosting")

    def tend(self, wanted: PrepareOrchestrators, nodes: tuple[NodeAddress, ...]) -> HostingReport:
        """Tell the node what it does not know yet. Returns its state. Raises `Lost`, or `OptionError`."""
        report = self._ask(AskHosting())
        due = self._certified is None or self._clock() >= self._certified + ORCHESTRATOR_RENEWED.total_seconds()
        if (due or self._told != nodes) and not self._backoff.left:
            report = self._ask(self._pool(nodes, report.request if due else b""))
            if report.untold:
                self._backoff.failed()
            else:
                self._backoff.success()
                self._told = nodes
                self._certified = self._clock() if due else self._certified
        if self._prepared is not wanted:
            report = self._ask(wanted)
            self._prepared = wanted
        return report

    def _pool(self, nodes: tuple[NodeAddress, ...], request: bytes) -> TellPool:
        """With a certificate, if there is a request for one."""
        certificate, authority = self._certify(request, self._link.name) if request else (b"", b"")
        platform, pool = self._names
        return TellPool(
            platform=platform,
            pool=pool,
            nodes=tuple((each.host, each.port) for each in nodes),
            certificate=certificate,
            authority=authority,
        )

    def _ask(self, asked: AskHosting | TellPool | PrepareOrchestrators) -> HostingReport:
        deadline = time.monotonic() + _SECONDS
        self._connection.send(asked, deadline)
        return self._connection.received(hosting_messages.read_report, deadline)

    def close(self) -> None:
        """May be called twice."""
        self._link.drop(self._connection)
