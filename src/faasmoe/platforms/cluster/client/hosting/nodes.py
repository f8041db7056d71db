"""The nodes that run orchestrators: which of them can, and which gets the next one."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from faasmoe.errors import FaasmoeError
from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.client.hosting.keeper import Certify, HostingKeeper
from faasmoe.platforms.cluster.client.hosting.remote import NodeOrchestrator
from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.client.membership import Membership
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.hosting_messages import DENSE, HostingReport, PrepareOrchestrators
from faasmoe.platforms.cluster.weights.contents import contents_of
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.backoff import Backoff
from faasmoe.util.closeable import Closeable
from faasmoe.util.failure_log import FailureLog

log = logging.getLogger(__name__)

ALL = "all"  # nodes, where others are named
_PERIOD = 1.0  # seconds between looks at nodes
_FIRST_PAUSE, _LONGEST_PAUSE = 15.0, 600.0  # seconds after a failure in which a node is asked for no orchestrator
_PREPARE_PAUSES = (_PERIOD, 60.0)  # seconds between attempts to prepare what nodes load


class ClusterOrchestratorNodes(Closeable):
    """Implements `platforms.orchestrator_nodes.OrchestratorNodes`. A thread of its own keeps the nodes able."""

    def __init__(
        self,
        membership: Membership,
        names: frozenset[str],
        pool: str,
        certify: Certify,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`names` of the nodes that may; they have to be willing as well. `pool` is its name."""
        self.offered: dict[str, FunctionContent] = {}  # what nodes may fetch, beside weights of functions
        self._membership = membership
        self._names = names
        self._pool = pool
        self._certify = certify
        self._clock = clock
        self._lock = threading.Lock()  # of what follows
        self._offer: tuple[bytes, FunctionSpec] | None = None
        self._reports: Mapping[str, HostingReport] = {}  # of nodes that can run orchestrators; replaced as a whole
        self._running: Counter[str] = Counter()  # orchestrators, by node
        self._pauses: dict[str, Backoff] = {}  # of nodes on which orchestrators have failed
        self._failures = FailureLog(log, logging.ERROR, clock)  # of the thread, as all that follows
        self._backoff = Backoff(*_PREPARE_PAUSES, clock=clock)
        self._prepared_for: tuple[bytes, FunctionSpec] | None = None  # the offer
        self._wanted: PrepareOrchestrators | None = None  # what nodes are to load
        self._keepers: dict[NodeLink, HostingKeeper] = {}
        self._told: dict[str, str] = {}  # causes that were logged, by node
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hosting", daemon=True)
        self._thread.start()

    # What the fleet asks

    def offer(self, start: bytes, dense: FunctionSpec) -> None:
        """See `OrchestratorNodes.offer`."""
        with self._lock:
            self._offer = start, dense

    @property
    def has_room(self) -> bool:
        """See `OrchestratorNodes.has_room`."""
        with self._lock:
            return self._best() is not None

    def start(self) -> NodeOrchestrator | None:
        """See `OrchestratorNodes.start`."""
        while True:
            with self._lock:
                if (link := self._best()) is None:
                    return None
                self._running[link.name] += 1
            try:
                return self._started(link)
            except Lost as error:
                self._ended(link.name, True)
                log.warning("node %s has started no orchestrator: %s", link.name, error)
            except BaseException:
                with self._lock:
                    self._running[link.name] -= 1
                raise

    def _started(self, link: NodeLink) -> NodeOrchestrator:
        return NodeOrchestrator(
            link,
            leaves=lambda: link not in self._membership.ready(),
            ended=partial(self._ended, link.name),
            clock=self._clock,
        )

    def _ended(self, name: str, failed: bool) -> None:
        with self._lock:
            self._running[name] -= 1
            if failed:
                pause = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, calm=_LONGEST_PAUSE, clock=self._clock)
                self._pauses.setdefault(name, pause).failed()
            else:
                self._pauses.pop(name, None)

    def _is_spared(self, name: str) -> bool:
        return name in self._pauses and self._pauses[name].left > 0

    def _best(self) -> NodeLink | None:
        """The node with the fewest orchestrators, and of these the most memory, if one can run one more."""
        able = [
            (-self._running[link.name], report.available, link)
            for link in self._membership.ready()
            if (report := self._reports.get(link.name)) and report.state == "ready"
            and self._running[link.name] < report.slots and not self._is_spared(link.name)
        ]  # fmt: skip
        return max(able, key=lambda each: each[:2])[2] if able else None

    # The thread

    def _run(self) -> None:
        while not self._closed.wait(_PERIOD):
            try:
                self._turn()
                self._failures.succeeded()
            except Exception as error:  # noqa: BLE001 - a defect, or weights that cannot be read; nodes wait for this
                self._failures.failed("no orchestrators start on nodes, trying again", error)
                self._backoff.failed()

    def _turn(self) -> None:
        """Prepare what was offered last, and look at the nodes. Raises `FaasmoeError` if the weights cannot be read."""
        with self._lock:
            offer = self._offer
        if offer and offer is not self._prepared_for and not self._backoff.left:
            self._wanted = self._prepared(*offer)
            self._prepared_for = offer
        if self._wanted:
            self._look(self._wanted)

    def _prepared(self, start: bytes, dense: FunctionSpec) -> PrepareOrchestrators:
        (content,) = contents_of([dense], DigestBook.of_user())
        assert content is not None  # noqa: S101 (its artifact is a file)
        self.offered[DENSE] = content
        return PrepareOrchestrators(start=start, content=content)

    def _look(self, wanted: PrepareOrchestrators) -> None:
        reports = {}
        for link in self._links():
            try:
                with self._kept(link) as keeper:
                    report = keeper.tend(wanted, tuple(each.address for each in self._membership.links))
            except (Lost, FaasmoeError) as error:
                if isinstance(error, (LinkRefused, FaasmoeError)):
                    self._tell(link.name, str(error))
                continue
            self._tell(link.name, report.cause)
            reports[link.name] = report
        with self._lock:
            self._reports = reports

    def _links(self) -> list[NodeLink]:
        """Of nodes that may run orchestrators."""
        there = [link for link in self._membership.ready() if {link.name, ALL} & self._names]
        for link in [link for link in self._keepers if link not in there]:
            self._keepers.pop(link).close()
        return there

    @contextmanager
    def _kept(self, link: NodeLink) -> Iterator[HostingKeeper]:
        """What keeps a node; it is made anew after an error, or when the node was started again. Raises `Lost`."""
        keeper = self._keepers.pop(link, None)
        if keeper and keeper.incarnation != link.incarnation:
            keeper.close()
            keeper = None
        keeper = keeper or HostingKeeper(link, self._membership.platform, self._pool, self._certify)
        try:
            yield keeper
        except BaseException:
            keeper.close()
            raise
        self._keepers[link] = keeper

    def _tell(self, name: str, cause: str) -> None:
        if cause and cause != self._told.get(name):
            log.warning("node %s can run no orchestrators: %s", name, cause)
        self._told[name] = cause

    def close(self) -> None:
        """Start none any more. Those that run end with their links. May be called twice."""
        self._closed.set()
        self._thread.join()
        for keeper in self._keepers.values():
            keeper.close()
        self._keepers.clear()
