"""What a client knows of its cluster: states of nodes, the catalogue, and the hosts of each function.

The head owns the pool: it claims the nodes, tells each that joins what the others know, and publishes the hosts of
functions by the catalogue. Every client plans the same way from the same nodes, so it need not wait for the head when
a node is lost: it calls the next host at once, which starts the function if that has no instance yet.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from faasmoe.errors import PlatformError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.catalogue import Catalogue
from faasmoe.platforms.cluster.client.hosts import UNLIMITED, hosts_of
from faasmoe.platforms.cluster.client.link import NodeLink, Watcher
from faasmoe.platforms.cluster.placement.node_states import NodeState, NodeStates
from faasmoe.platforms.cluster.placement.placement import Node
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import (
    AskCatalogue,
    BeatReply,
    CatalogueEntry,
    CatalogueReport,
    Failure,
    Finished,
    Install,
)
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.closeable import Closeable

log = logging.getLogger(__name__)

ORDER_SECONDS = 120.0  # within which an order is carried out
_DRAIN_SECONDS = 10.0  # that a node takes calls which it has begun


class Membership(Closeable):
    """For all threads."""

    def __init__(
        self,
        platform: str,
        credentials: Credentials,
        make_link: Callable[[NodeAddress, Credentials, Watcher], NodeLink] = NodeLink,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`platform` is its name in errors. It has no nodes before `set_nodes`."""
        self.platform = platform
        self.head = credentials.head
        self.version = 0  # changes with the nodes that take calls and with the hosts of functions
        self.hosts: dict[str, tuple[str, ...]] = {}  # of each deployed function
        self.catalogue = Catalogue()
        self._credentials = credentials
        self._make_link = make_link
        self._states = NodeStates(clock)
        self._changed = threading.Condition()  # its lock is that of everything here
        self._links: tuple[NodeLink, ...] = ()  # replaced as a whole: threads go through it without the lock
        self._unsettled: set[NodeLink] = set()  # that have neither joined nor failed yet
        self._stale: set[NodeLink] = set()  # whose catalogue is another than ours
        self._closed = False
        self._steward = threading.Thread(target=self._run, name="cluster", daemon=True)
        self._steward.start()

    def set_nodes(self, addresses: Sequence[NodeAddress]) -> None:
        """The cluster has these nodes from now on. Does not wait for them.

        Links to new ones start. One that is gone gets no more calls, and its link ends when those that run are
        answered, or have taken too long.
        """
        with self._changed:
            if self._closed:
                return
            known = {link.address: link for link in self._links if not link.retires}
            new = {each: self._make_link(each, self._credentials, self) for each in addresses if each not in known}
            gone = [link for address, link in known.items() if address not in set(addresses)]
            stay = [(known | new)[address] for address in addresses]
            self._links = (*stay, *(link for link in self._links if link not in stay))
            self._unsettled.update(new.values())
            for link in gone:
                log.info("%s is no longer one of the nodes", _title(link))
                if self._is(link, NodeState.JOINING, NodeState.READY):
                    self._states.drain(link.name, _DRAIN_SECONDS)
                link.retire(_DRAIN_SECONDS)
            if gone:
                self._replan()
        for link in new.values():
            link.start()

    # What links tell, each from its own thread

    def joined(self, link: NodeLink) -> None:
        """See `Watcher`."""
        with self._changed:
            member = self._states.members.get(link.name)
            if member and member.state is not NodeState.LOST:
                raise LinkRefused(f"another node is called {link.name}, too")
            memory = UNLIMITED if link.memory_budget is None else link.memory_budget
            link.epoch = self._states.join(Node(link.name, memory, float(link.cores)))
            self._stale.add(link)
            self._changed.notify_all()

    def heard(self, link: NodeLink, reply: BeatReply) -> None:
        """See `Watcher`."""
        with self._changed:
            self._states.heard(link.name, link.epoch)
            member = self._states.members[link.name]
            if reply.draining and member.state is NodeState.READY:
                self._states.drain(link.name, _DRAIN_SECONDS)
                log.info("node %s drains", link.name)
                self._replan()
            behind = reply.stamp < self.catalogue.stamp and (self.head or member.state is NodeState.JOINING)
            if reply.stamp > self.catalogue.stamp or behind:
                self._stale.add(link)
                self._changed.notify_all()

    def ticked(self) -> None:
        """See `Watcher`."""
        with self._changed:
            lost = self._states.tick()
            links = [link for link in self._links if link.name in lost]
            if lost:
                self._replan()
        for link in links:
            link.cut("it does not answer heartbeats")

    def left(self, link: NodeLink) -> None:
        """See `Watcher`."""
        with self._changed:
            self._unsettled.discard(link)
            self._stale.discard(link)
            if link.epoch:
                if not link.retires:
                    log.warning("node %s is lost: %s", link.name, link.cause)
                self._states.lose(link.name, link.epoch)
                link.epoch = 0
                self._replan()
            if link.retires:
                self._links = tuple(each for each in self._links if each is not link)
                if all(each.name != link.name for each in self._links):
                    self._states.forget(link.name)
            self._changed.notify_all()

    # What callers ask

    def settle(self, seconds: float) -> None:
        """Wait until every node has joined, or one attempt to reach it has failed.

        Raises `PlatformError` if no node can be used, or one refuses the head of a pool.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._unsettled, seconds)
            refused = [link for link in self._links if link.refused and not link.epoch]
            if not self._ready() or (refused and self.head):
                causes = "; ".join(f"{_title(link)}: {link.cause}" for link in refused or self._links)
                raise PlatformError(self.platform, "(all)", f"no use without these nodes: {causes}")

    @property
    def links(self) -> Sequence[NodeLink]:
        """All nodes of the cluster, whatever their state."""
        return self._links

    def state(self, link: NodeLink) -> str:
        """The state of a node: that of `NodeState`, or refused."""
        with self._changed:
            if link.epoch:
                return str(self._states.members[link.name].state)
            return "refused" if link.refused else str(NodeState.LOST)

    @property
    def stamp(self) -> int:
        """Of the newest entry that is known."""
        return self.catalogue.stamp

    def functions(self) -> list[str]:
        """Names of the functions that are deployed, as far as is known."""
        return list(self.hosts)

    def present(self) -> list[NodeLink]:
        """Nodes that take calls, or finish them."""
        with self._changed:
            return [link for link in self._links if self._is(link, NodeState.READY, NodeState.DRAINING)]

    def ready(self) -> list[NodeLink]:
        """Nodes that take calls."""
        with self._changed:
            return self._ready()

    def _ready(self) -> list[NodeLink]:
        return [link for link in self._links if self._is(link, NodeState.READY)]

    def _is(self, link: NodeLink, *states: NodeState) -> bool:
        return bool(link.epoch) and self._states.members[link.name].state in states

    def lose(self, link: NodeLink, epoch: int, cause: str) -> None:
        """A caller has seen the end of its connection: the node is lost, unless it has joined again since."""
        with self._changed:
            if link.epoch != epoch or not self._states.lose(link.name, epoch):
                return
            self._replan()
        link.cut(cause)

    def drains(self, link: NodeLink) -> None:
        """A node has answered that it takes no more calls."""
        with self._changed:
            if self._is(link, NodeState.READY):
                self._states.drain(link.name, _DRAIN_SECONDS)
                self._replan()

    def wait(self, version: int, seconds: float) -> None:
        """Wait until `version` is no longer that of the membership, so many seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self.version != version, seconds)

    def causes(self) -> str:
        """Why nodes cannot be used."""
        with self._changed:
            return "; ".join(f"{_title(link)}: {link.cause}" for link in self._links if not link.epoch)

    def enter(self, change: Callable[[Catalogue], Sequence[CatalogueEntry]]) -> list[CatalogueEntry]:
        """Change the catalogue here, and plan for it. Returns the entries that nodes must take over."""
        with self._changed:
            entries = change(self.catalogue)
            self._merge(entries)
            news = self.catalogue.hosted(self.hosts)  # with the hosts that were just chosen
            self.catalogue.merge(news)
            return [self.catalogue.entries[name] for name in {e.name for e in [*entries, *news]}]

    def learn(self, entries: Sequence[CatalogueEntry]) -> None:
        """Take over entries of a node's catalogue."""
        with self._changed:
            self._merge(entries)

    # The steward's thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._stale or self._unpublished())
                if self._closed:
                    return
                stale, self._stale = self._stale, set()
            for link in stale:
                self._sync(link)
            if self.head:
                self._publish()

    def _sync(self, link: NodeLink) -> None:
        """Learn what the node knows better; the head tells it what it does not know. Then it can take calls."""
        try:
            report = link.ask(AskCatalogue(0), CatalogueReport, ORDER_SECONDS)
            if not isinstance(report, CatalogueReport):
                raise LinkRefused(report.cause)
            with self._changed:
                self._merge(report.entries)
                there = {entry.name: entry.stamp for entry in report.entries}
                news = [e for e in self.catalogue.entries.values() if e.stamp > there.get(e.name, 0)]
            if news and not self.head:
                return  # the head will tell it, and a heartbeat us
            if news:
                self._tell(link, news)
        except Lost as error:
            link.cut(str(error), isinstance(error, LinkRefused))
            return
        with self._changed:
            joining = self._is(link, NodeState.JOINING)
            if joining and self._states.ready(link.name, link.epoch):
                self._unsettled.discard(link)
                self._replan()

    def _publish(self) -> None:
        with self._changed:
            news = self.catalogue.hosted(self.hosts)
            self.catalogue.merge(news)
        if news:
            for link in self.ready():
                self._tell(link, news)

    def _tell(self, link: NodeLink, news: Sequence[CatalogueEntry]) -> None:
        """A node that does not take what all others have taken is of no use."""
        try:
            answer = link.ask(Install(tuple(news)), Finished, ORDER_SECONDS)
            if isinstance(answer, Failure):
                raise LinkRefused(answer.cause)
        except Lost as error:
            link.cut(str(error), isinstance(error, LinkRefused))

    # The plan; whoever calls these holds the lock

    def _unpublished(self) -> bool:
        return self.head and bool(self._ready()) and bool(self.catalogue.hosted(self.hosts))

    def _merge(self, entries: Sequence[CatalogueEntry]) -> None:
        if self.catalogue.newer(entries):
            self.catalogue.merge(entries)
            self._replan()

    def _replan(self) -> None:
        """Choose hosts for functions that have none which takes calls. The head also evens out."""
        self.hosts = hosts_of(self.catalogue, self._states.hosting(), even_out=self.head)
        self.version += 1
        self._changed.notify_all()

    def close(self) -> None:
        """End all links. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for link in self._links:
            link.close()
        if self._steward.is_alive():
            self._steward.join()


def _title(link: NodeLink) -> str:
    return f"node {link.name} ({link.address})" if link.name else f"node at {link.address}"
