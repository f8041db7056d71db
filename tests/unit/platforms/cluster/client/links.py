"""Links to nodes that only tests know of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from faasmoe.platforms.base import FunctionStatus, Instance, PoolStatus
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.catalogue import Catalogue
from faasmoe.platforms.cluster.client.link import Watcher
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import (
    AskCatalogue,
    AskNode,
    BeatReply,
    CatalogueReport,
    Finished,
    Install,
    NodeReport,
    Order,
    PrewarmFunctions,
    StopFunctions,
    Traffic,
)
from faasmoe.platforms.local.protocol.wire import Lost


def address(name: str) -> NodeAddress:
    """Of a node whose name is one letter."""
    return NodeAddress("127.0.0.1", ord(name))


class FakeLink:
    """A link and its node. Nothing happens by itself: the test calls `join`, `beat` and `leave`."""

    def __init__(self, address: NodeAddress, credentials: Credentials, watcher: Watcher) -> None:
        self.address, self.credentials, self.watcher = address, credentials, watcher
        self.name, self.epoch, self.incarnation = "", 0, ""
        self.cores, self.memory_budget, self.round_trip = 1, None, 0.0
        self.cause, self.refused, self.retires = "it was not reached yet", False, False
        self.started = False
        self.catalogue = Catalogue()  # of the node
        self.orders: list[Order] = []
        self.instances: set[str] = set()  # functions that have one
        self.work: dict[str, float] = {}  # that the node has done, by function
        self.answers: dict[type[Order], Any] = {}  # to orders, instead of the usual ones

    def start(self) -> None:
        self.started = True

    def join(self, **facts: Any) -> None:
        self.name = facts.pop("name", chr(self.address.port))
        self.incarnation = facts.pop("incarnation", f"{self.name}1")
        for fact, value in facts.items():
            setattr(self, fact, value)
        self.watcher.joined(self)

    def beat(self, **told: Any) -> None:
        """The node answers a heartbeat."""
        self.watcher.heard(
            self, BeatReply(**{"stamp": self.catalogue.stamp, "state": "ready", "traffic": Traffic(), **told})
        )

    def leave(self, cause: str = "gone", refused: bool = False) -> None:
        """The connection ends, or there was none."""
        self.cause, self.refused = cause, refused
        self.watcher.left(self)

    def cut(self, cause: str, refused: bool = False) -> None:
        self.leave(cause, refused)

    def retire(self, seconds: float) -> None:
        self.retires = True

    def close(self) -> None:
        self.retires = True
        self.watcher.left(self)

    def ask(self, order: Order, wanted: type, seconds: float = inf) -> Any:
        return self.send(order, seconds)(wanted)

    def send(self, order: Order, seconds: float) -> Callable[[type], Any]:
        """Answers at once."""
        if not self.epoch:
            raise Lost("it is gone")
        self.orders.append(order)
        answer = self.answers.get(type(order)) or self._usual(order)
        return lambda wanted: answer

    def _usual(self, order: Order) -> Finished | CatalogueReport | NodeReport:
        match order:
            case Install():
                self.catalogue.merge(order.entries)
                self.instances -= {entry.name for entry in order.entries if self.name not in entry.hosts}
            case PrewarmFunctions():
                self.instances |= set(order.names)
            case StopFunctions():
                self.instances -= set(order.names)
            case AskNode():
                running = [FunctionStatus(name, "idle", (Instance("1", self.name),)) for name in self.instances]
                pool = PoolStatus(functions=running, memory_used=0)
                return NodeReport(state="ready", pool=pool, traffic=Traffic(), work=dict(self.work))
            case AskCatalogue():
                return CatalogueReport(tuple(self.catalogue.beyond(order.beyond)))
        return Finished()

    def done(self, kind: type[Order]) -> Sequence[Order]:
        """Orders of a kind that it has got."""
        return [order for order in self.orders if isinstance(order, kind)]
