"""The rebalancer: in the head, moves functions between nodes by recorded load, and off nodes that drain."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from faasmoe.errors import ServingError, UserError
from faasmoe.platforms.cluster.client.membership import Membership
from faasmoe.platforms.cluster.client.orders import ClusterOrders
from faasmoe.platforms.cluster.client.steward import ORDER_SECONDS
from faasmoe.platforms.cluster.protocol.messages import Failure, Finished, Order, PrewarmFunctions, StopFunctions
from faasmoe.platforms.cluster.rollout.controller import Controller, CopyOrder
from faasmoe.platforms.cluster.rollout.load_meter import LoadMeter
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.closeable import Closeable

log = logging.getLogger(__name__)

SURVEY_SECONDS = 5.0  # between two questions of nodes what they have run
SHIFT_SECONDS = 30.0  # between two plans by load
_TICK = 1.0  # seconds between looks at the cluster while nothing is heard
_PREWARMS = 32  # side by side, on all nodes


class Rebalancer(Closeable):
    """A thread that carries out the orders of a `Controller`."""

    def __init__(
        self,
        membership: Membership,
        orders: ClusterOrders,
        survey_seconds: float = SURVEY_SECONDS,
        shift_seconds: float = SHIFT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._membership = membership
        self._orders = orders
        self._every = survey_seconds, shift_seconds
        self._clock = clock
        self._controller = Controller(clock)
        self._meter = LoadMeter()
        self._work: dict[str, dict[str, float]] = {}  # that agents have reported, by incarnation
        self._surveyed = self._planned = clock()
        self._called = False  # since the last plan by load
        self._nodes: object = None  # at the last survey
        self._version = -1  # of the membership, at the last step
        # prewarms that have ended, and whether well; None: the cluster has changed
        self._news: queue.SimpleQueue[tuple[CopyOrder, bool] | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(_PREWARMS, thread_name_prefix="prewarm")
        self._thread = threading.Thread(target=self._run, name="rebalancer", daemon=True)

    def start(self) -> None:
        """Begin. The membership has settled."""
        self._membership.changed = lambda: self._news.put(None)
        self._thread.start()

    @property
    def settled(self) -> bool:
        """Whether nodes host what is planned."""
        return self._controller.settled

    def _run(self) -> None:
        while not self._closed.is_set():
            self.turn(_TICK)

    def turn(self, seconds: float) -> None:
        """Wait until anything happens, so many seconds at most. Then ask nodes if that is due, and give orders."""
        with suppress(queue.Empty):
            self._hear(self._news.get(timeout=seconds))
            while True:  # all that has happened, before one step
                self._hear(self._news.get_nowait())
        self._step()

    def _hear(self, ended: tuple[CopyOrder, bool] | None) -> None:
        if ended is not None:
            copy, warmed = ended
            (self._controller.warmed if warmed else self._controller.refused)(copy)

    def _step(self) -> None:
        now, version = self._clock(), self._membership.version
        due = now >= self._surveyed + self._every[0]
        if not due and version == self._version and self._controller.at_rest:
            return
        self._version, view = version, self._membership.view()
        self._controller.see(view)
        nodes = view.nodes, view.epochs
        if due or nodes != self._nodes:
            self._nodes = nodes
            self._survey(now - self._surveyed)
            self._surveyed = now
        if self._called and now >= self._planned + self._every[1]:
            self._planned, self._called = now, False
            self._controller.set_loads(self._meter.loads({each.name: each.memory for each in view.functions}))
        orders = self._controller.orders()
        self._membership.route(orders.hosts)
        for copy in orders.prewarms:
            self._pool.submit(self._prewarm, copy)
        for copy in orders.stops:
            self._pool.submit(self._order, copy, StopFunctions((copy.function,)))

    def _survey(self, seconds: float) -> None:
        """Learn which functions have instances where, and what was called since the last time."""
        try:
            reports = self._orders.reports()
        except (ServingError, UserError) as error:
            log.warning("what nodes run stays as it was known: %s", error)
            return
        work: dict[str, float] = {}
        warm: dict[str, set[str]] = {}
        readings = self._membership.readings
        for link, report in reports:
            warm[link.name] = {function.name for function in report.pool.functions if function.instances}
            before = self._work.get(link.incarnation, {})
            for name, done in report.work.items():
                more = (done - before.get(name, 0.0)) * readings.get(name, 0)
                work[name] = work.get(name, 0.0) + more
            self._work[link.incarnation] = report.work
        self._controller.note(warm)
        self._called |= self._meter.note(work, seconds)

    def _prewarm(self, copy: CopyOrder) -> None:
        self._news.put((copy, self._order(copy, PrewarmFunctions((copy.function,)))))

    def _order(self, copy: CopyOrder, order: Order) -> bool:
        """In a thread of the pool. Returns whether the node has carried it out."""
        links = (
            link for link in self._membership.callable() if (link.name, link.epoch) == (copy.node, copy.epoch)
        )
        try:
            answers = [link.ask(order, Finished, ORDER_SECONDS) for link in links]
        except Lost as error:
            log.info("node %s is lost with its order for function %s: %s", copy.node, copy.function, error)
            return False
        for answer in answers:
            if isinstance(answer, Failure):
                log.warning(
                    "node %s has refused an order for function %s: %s", copy.node, copy.function, answer.cause
                )
        return any(isinstance(answer, Finished) for answer in answers)

    def close(self) -> None:
        """Move nothing any more. May be called twice."""
        self._closed.set()
        self._news.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)  # what is under way ends with its link
