"""What a client knows of its cluster: states of nodes, the catalogue, and the hosts of each function.

The head owns the pool: it claims the nodes, tells each that joins what the others know, and publishes the hosts of
functions by the catalogue. A function whose nodes are all lost is given another one by every client in the same way,
so none need wait for the head: it calls the new host at once, which starts the function if that has no instance yet.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from faasmoe.errors import PlatformError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.catalogue import Catalogue
from faasmoe.platforms.cluster.client.hosts import functions_of, hosts_of
from faasmoe.platforms.cluster.client.link import NodeLink, Watcher
from faasmoe.platforms.cluster.client.reports.meters import Meters
from faasmoe.platforms.cluster.placement.node_states import NodeState, NodeStates
from faasmoe.platforms.cluster.placement.placement import UNLIMITED, Node
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import BeatReply, CatalogueEntry
from faasmoe.platforms.cluster.rollout.controller import View
from faasmoe.util.closeable import Closeable

log = logging.getLogger(__name__)

_LEAVE_SECONDS = 60.0  # that a node which is gone from the list keeps functions that nobody else takes
_CALL_SECONDS = 10.0  # that it takes calls which it has begun


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
        self.readings: dict[str, int] = {}  # `FunctionSpec.reading` of each
        self.catalogue = Catalogue()
        self.meters = Meters(clock)
        self.changed: Callable[[], object] = lambda: None  # called with each version
        self._credentials = credentials
        self._make_link = make_link
        self._clock = clock
        self._states = NodeStates(clock)
        self._changed = threading.Condition()  # its lock is that of everything here
        self.links: tuple[NodeLink, ...] = ()  # of all nodes; replaced as a whole, so one need not have the lock
        self._leaving: dict[NodeLink, float] = {}  # of nodes that are no longer the cluster's, and until when
        self._unsettled: set[NodeLink] = set()  # that have neither joined nor failed yet
        self._stale: set[NodeLink] = set()  # whose catalogue is another than ours
        self._unsent: set[str] = set()  # functions with hosts that nodes have not been told
        self.closed = False

    def set_nodes(self, addresses: Sequence[NodeAddress]) -> None:
        """The cluster has these nodes from now on. Does not wait for them.

        Links to new ones start. One that is gone is drained, and its link ends when calls to it are answered.
        """
        with self._changed:
            if self.closed:
                return
            known = {link.address: link for link in self.links if not link.retires and link not in self._leaving}
            new = {each: self._make_link(each, self._credentials, self) for each in addresses if each not in known}
            stay = [(known | new)[address] for address in addresses]
            self.links = (*stay, *(link for link in self.links if link not in stay))
            self._unsettled.update(new.values())
            for link in set(known.values()) - set(stay):
                log.info("%s is no longer one of the nodes", title(link))
                self._leaving[link] = self._clock() + _LEAVE_SECONDS
                if link.epoch:
                    self._states.turn(link.name, NodeState.DRAINING)
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
            if not self._states.heard(link.name, link.epoch):
                return
            self.meters.beat(link.incarnation, reply.traffic)
            to = NodeState.DRAINING if reply.state == "ready" and link in self._leaving else NodeState(reply.state)
            if self._states.turn(link.name, to):
                log.info("node %s is %s", link.name, to)
                self._replan()
            differs = reply.stamp != self.catalogue.stamp if self.head else reply.stamp > self.catalogue.stamp
            if differs or self._is(link, NodeState.JOINING):
                self._stale.add(link)
                self._changed.notify_all()

    def ticked(self) -> None:
        """See `Watcher`."""
        with self._changed:
            lost = self._states.tick()
            overdue = [link for link, until in self._leaving.items() if self._clock() >= until and link.epoch]
            for link in overdue:
                self._states.turn(link.name, NodeState.DRAINED)
            if lost or overdue:
                self._replan()
        for link in (link for link in self.links if link.name in lost):
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
                self._leaving.pop(link, None)
                self.links = tuple(each for each in self.links if each is not link)
                if all(each.name != link.name for each in self.links):
                    self._states.forget(link.name)
            self._let_go()
            self._changed.notify_all()

    def _let_go(self) -> None:
        """End links to nodes that are no longer the cluster's, once nobody needs them."""
        needed = {host for hosts in self.hosts.values() for host in hosts} if self._leaving else ()
        for link in [link for link in self._leaving if not link.epoch or link.name not in needed]:
            del self._leaving[link]
            link.retire(_CALL_SECONDS)

    # What callers ask

    def settle(self, seconds: float) -> None:
        """Wait until every node has joined, or one attempt to reach it has failed.

        Raises `PlatformError` if no node can be used, or one refuses the head of a pool.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._unsettled, seconds)
            refused = [link for link in self.links if link.refused and not link.epoch]
            if not self.ready() or (refused and self.head):
                causes = "; ".join(f"{title(link)}: {link.cause}" for link in refused or self.links)
                raise PlatformError(self.platform, "(all)", f"no use without these nodes: {causes}")

    def state(self, link: NodeLink) -> str:
        """The state of a node: that of `NodeState`, or refused."""
        with self._changed:
            if link.epoch:
                return str(self._states.members[link.name].state)
            return "refused" if link.refused else str(NodeState.LOST)

    def present(self) -> list[NodeLink]:
        """Nodes that have joined, whether they take calls or not."""
        return self._in(NodeState.READY, NodeState.DRAINING, NodeState.DRAINED)

    def callable(self) -> list[NodeLink]:
        """Nodes that take calls."""
        return self._in(NodeState.READY, NodeState.DRAINING)

    def ready(self) -> list[NodeLink]:
        """Nodes that take calls and functions."""
        return self._in(NodeState.READY)

    def _in(self, *states: NodeState) -> list[NodeLink]:
        with self._changed:
            return [link for link in self.links if self._is(link, *states)]

    def _is(self, link: NodeLink, *states: NodeState) -> bool:
        return bool(link.epoch) and self._states.members[link.name].state in states

    def lose(self, link: NodeLink, epoch: int, cause: str) -> None:
        """A caller has seen the end of its connection: the node is lost, unless it has joined again since."""
        with self._changed:
            if link.epoch != epoch or not self._states.lose(link.name, epoch):
                return
            self._replan()
        link.cut(cause)

    def drained(self, link: NodeLink) -> None:
        """A node has answered that it takes no more calls."""
        with self._changed:
            if link.epoch and self._states.turn(link.name, NodeState.DRAINED):
                self._replan()

    def wait(self, version: int, seconds: float) -> None:
        """Wait until `version` is no longer that of the membership, so many seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self.version != version, seconds)

    def causes(self) -> str:
        """Why nodes cannot be used."""
        with self._changed:
            return "; ".join(f"{title(link)}: {link.cause}" for link in self.links if not link.epoch)

    def view(self) -> View:
        """The cluster as it is now, for planning."""
        with self._changed:
            nodes, epochs = self._states.hosting(), self._states.callable()
            return View(functions=functions_of(self.catalogue), nodes=nodes, epochs=epochs, hosts=self.hosts)

    def enter(self, change: Callable[[Catalogue], Sequence[CatalogueEntry]]) -> list[CatalogueEntry]:
        """Change the catalogue here, and give functions hosts. Returns the entries that nodes must take over."""
        with self._changed:
            entries = change(self.catalogue)
            self._merge(entries)
            return self._news({entry.name for entry in entries})

    def learn(self, entries: Sequence[CatalogueEntry]) -> list[CatalogueEntry]:
        """Take over what a node knows better. Returns what is newer here, if those were all of its entries."""
        with self._changed:
            self._merge(entries)
            there = {entry.name: entry.stamp for entry in entries}
            return [entry for entry in self.catalogue.entries.values() if entry.stamp > there.get(entry.name, 0)]

    def route(self, hosts: Mapping[str, tuple[str, ...]]) -> None:
        """Call these hosts from now on. The head's decision: the steward tells the nodes, they tell other clients."""
        with self._changed:
            entries = self.catalogue.hosted(hosts)
            self._unsent |= {entry.name for entry in entries}
            self._merge(entries)

    def ready_now(self, link: NodeLink) -> None:
        """A node knows what others know."""
        with self._changed:
            if self._is(link, NodeState.JOINING) and self._states.ready(link.name, link.epoch):
                self._unsettled.discard(link)
                self._replan()

    def errands(self, seconds: float | None = None) -> tuple[list[NodeLink], list[CatalogueEntry]]:
        """Wait for what the steward has to do: nodes to compare with, entries to tell all. So long at most."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._stale or self._unpublished(), seconds)
            if self.closed:
                return [], []
            stale, self._stale = [link for link in self._stale if link.epoch], set()
            return stale, self._news(self._unsent) if self._unpublished() else []

    def _unpublished(self) -> bool:
        return self.head and bool(self.present()) and bool(self._unsent or self.catalogue.hosted(self.hosts))

    def _news(self, names: set[str]) -> list[CatalogueEntry]:
        """Entries of functions `names`, and of those whose hosts are not those of the catalogue."""
        news = self.catalogue.hosted(self.hosts)
        self.catalogue.merge(news)
        names = names | {entry.name for entry in news}
        self._unsent -= names
        return [self.catalogue.entries[name] for name in names]

    def _merge(self, entries: Sequence[CatalogueEntry]) -> None:
        if self.catalogue.newer(entries):
            self.catalogue.merge(entries)
            self._replan()

    def _replan(self) -> None:
        """Give hosts to functions that have none which takes calls."""
        self.hosts = hosts_of(self.catalogue, self._states.hosting(), self._states.callable())
        self.readings = {name: e.spec.reading for name, e in self.catalogue.functions().items() if e.spec}
        self.version += 1
        self._let_go()
        self._changed.notify_all()
        self.changed()

    def close(self) -> None:
        """End all links. May be called twice."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        for link in self.links:
            link.close()


def title(link: NodeLink) -> str:
    """A node in messages."""
    return f"node {link.name} ({link.address})" if link.name else f"node at {link.address}"
