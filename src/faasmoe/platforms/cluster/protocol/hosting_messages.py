"""Messages about orchestrators on nodes. On the lane `hosting` the head of a pool asks, one exchange at a time:

    PrepareOrchestrators, TellPool, AskHosting      answered by `HostingReport`

On the lane `orchestrator` the agent sends `OrchestratorRuns` or `NoOrchestrator` at once. After the former the
connection carries bytes: those of the socket of an orchestrator that was started for it, and that ends with it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.messages import ClusterMessage, read

DENSE = "(dense part)"  # its name where functions have theirs
HostingState = Literal["idle", "loading", "ready", "failed"]


class PrepareOrchestrators(ClusterMessage, frozen=True, kw_only=True):
    """Have a template load the model, and forget an earlier one."""

    start: bytes  # its orders, with the paths of the server's machine
    content: FunctionContent  # the dense part, whose files lie in one folder


class TellPool(ClusterMessage, frozen=True, kw_only=True):
    """What orchestrators need to call functions."""

    platform: str  # name
    pool: str
    nodes: tuple[tuple[str, int], ...]  # addresses of all
    certificate: bytes = b""  # PEM, of the key in `HostingReport.request`; empty: they keep the one that they have
    authority: bytes = b""  # PEM


class AskHosting(ClusterMessage, frozen=True):
    """Ask for the state of a node's orchestrators."""


class HostingReport(ClusterMessage, frozen=True, kw_only=True):
    """The state of a node's orchestrators."""

    state: HostingState  # of the template
    slots: int  # orchestrators that may run
    running: int
    available: int  # bytes of memory
    request: bytes  # signing request (PEM) of the key that orchestrators use
    cause: str = ""  # why it has failed
    untold: str = ""  # why it could not take the last `TellPool`; empty: it could


class OrchestratorRuns(ClusterMessage, frozen=True):
    """An orchestrator has been started."""


class NoOrchestrator(ClusterMessage, frozen=True):
    """No orchestrator can be started now."""

    cause: str


_asked: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(PrepareOrchestrators | TellPool | AskHosting)
_report = msgspec.msgpack.Decoder(HostingReport)
_started: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(OrchestratorRuns | NoOrchestrator)


def read_asked(head: memoryview) -> PrepareOrchestrators | TellPool | AskHosting:
    """What the head of the pool has sent. Raises `Lost`."""
    asked: PrepareOrchestrators | TellPool | AskHosting = read(_asked, head)
    return asked


def read_report(head: memoryview) -> HostingReport:
    """What an agent has answered on the lane `hosting`. Raises `Lost`."""
    return read(_report, head)


def read_started(head: memoryview) -> OrchestratorRuns | NoOrchestrator:
    """What an agent has sent on the lane `orchestrator`. Raises `Lost`."""
    started: OrchestratorRuns | NoOrchestrator = read(_started, head)
    return started
