"""A client's link to one node: a thread that connects, sends heartbeats, and connects again when the node is lost."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import NoReturn, Protocol, TypeVar

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.authority.revocations import Revocation
from faasmoe.platforms.cluster.authority.signing import verifier
from faasmoe.platforms.cluster.placement.node_states import HEARTBEAT
from faasmoe.platforms.cluster.protocol.connection import Connection, expected
from faasmoe.platforms.cluster.protocol.dialling import Dial, connect, dial
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import (
    Answered,
    Beat,
    BeatReply,
    CatalogueReport,
    ClusterMessage,
    Failure,
    Lane,
    Order,
    Welcome,
)
from faasmoe.platforms.cluster.protocol.tls import Peer
from faasmoe.platforms.cluster.signed_entries import PURPOSE, check_signed
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.backoff import Backoff

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts to connect
_LASTING: tuple[Lane, ...] = (
    "beat",
    "weights",
    "hosting",
)  # whose connections are open while nothing is under way
_SMOOTHING = 0.2  # weight of the last heartbeat in the round trip

_M = TypeVar("_M", bound=ClusterMessage)


class Watcher(Protocol):
    """Who follows a link. Its methods are called by the link's thread."""

    def joined(self, link: NodeLink) -> None:
        """The node is connected. Raises `LinkRefused` if it cannot be used."""

    def heard(self, link: NodeLink, reply: BeatReply) -> None:
        """A heartbeat was answered."""

    def ticked(self) -> None:
        """A heartbeat's time has passed."""

    def left(self, link: NodeLink) -> None:
        """The node is lost, or was not reached; `cause` says why."""


class NodeLink:
    """Any thread may use it, but for `take` and `give_back`, which are for the thread that calls functions."""

    def __init__(
        self,
        address: NodeAddress,
        credentials: Credentials,
        watcher: Watcher,
        dial: Dial = dial,
    ) -> None:
        """`dial` connects to an address within some seconds, by default over TCP. Raises `OSError`."""
        self.address = address
        self.name = ""  # of the node; empty before it was reached first
        self.epoch = 0  # of the node in its present state, see `NodeStates`
        self.incarnation = ""
        self.cores = 1
        self.memory_budget: int | None = None
        self.round_trip = 0.0  # seconds, of a heartbeat
        self.cause = "it was not reached yet"
        self.refused = False  # the cause is one that somebody has to mend
        self._credentials = credentials
        self._watcher = watcher
        self._dial = dial
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self._lasting: set[Connection] = set()  # of these
        self._idle: deque[Connection] = deque()  # for orders
        self._spare: list[Connection] = []  # for calls
        self._cut_for: tuple[str, bool] | None = None  # cause, and whether it is refused
        self._retires_at = inf  # instant after which the link ends, whatever is under way
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"link to {address}", daemon=True)

    def start(self) -> None:
        """Connect, and stay connected until `close`."""
        self._thread.start()

    def ask(self, order: Order, wanted: type[_M], seconds: float) -> _M | Failure:
        """Have the node carry out an order. Raises `Lost`."""
        asking = self.send(order, seconds)
        return asking(wanted)

    def send(self, order: Order, seconds: float) -> Callable[[type[_M]], _M | Failure]:
        """Send an order. Returns what waits for the answer. Raises `Lost`, as that does."""
        deadline = time.monotonic() + seconds
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self.open("orders")
        try:
            connection.send(order, deadline)
        except Lost:
            self.drop(connection)
            raise

        def answer(wanted: type[_M]) -> _M | Failure:
            try:
                answered: Answered = connection.answered(deadline)
                result = answered if isinstance(answered, Failure) else expected(answered, wanted)
                if isinstance(result, CatalogueReport):
                    self._check(result)
            except BaseException:
                self.drop(connection)
                raise
            self._keep(connection)
            return result

        return answer

    def _check(self, report: CatalogueReport) -> None:
        """A node is not believed what it says of functions: others would run it. Raises `LinkRefused`."""
        try:
            check_signed(report.entries, verifier(self._credentials.certificate(), PURPOSE))
        except OptionError as error:
            raise LinkRefused(f"its catalogue is false: {error}") from error

    def _keep(self, connection: Connection) -> None:
        """Use the connection again for orders, unless the link was cut meanwhile."""
        with self._lock:
            if connection in self._open:
                self._idle.append(connection)
                return
        connection.close()

    def open(self, lane: Lane) -> Connection:
        """A connection of its own, which ends with the link; `drop` closes it. Raises `Lost`."""
        connection, _, _ = self._connect(lane)
        return connection

    def take(self) -> Connection:
        """A connection for a batch of calls: the one that was used before, unless that is under way. Raises `Lost`."""
        while self._spare:
            connection = self._spare.pop()
            if connection in self._open:
                return connection
            connection.close()
        return self.open("calls")

    def give_back(self, connection: Connection) -> None:
        """A batch has ended, and the connection can take another one."""
        self._spare.append(connection)

    def drop(self, connection: Connection) -> None:
        """Close a connection that was used."""
        with self._lock:
            self._open.discard(connection)
            self._lasting.discard(connection)
        connection.close()

    def cut(self, cause: str, refused: bool = False) -> None:
        """End all connections: whoever waits for the node is told at once that it is lost."""
        with self._lock:
            connections, self._open, self._lasting = self._open, set(), set()
            idle = [self._idle.popleft() for _ in range(len(self._idle))]
            if connections:
                self._cut_for = (cause, refused)
        for connection in connections:
            connection.cut()
        for connection in idle:  # nobody else has these
            connection.close()

    @property
    def retires(self) -> bool:
        """Whether the link ends, or has ended, by `retire` or `close`."""
        return self._retires_at < inf

    def retire(self, seconds: float) -> None:
        """End the link as soon as nothing is under way on it, so many seconds from now at most. Does not wait."""
        self._retires_at = time.monotonic() + seconds
        if not self.epoch:
            self._closed.set()

    def close(self) -> None:
        """End the link. May be called twice."""
        self._retires_at = 0.0
        self._closed.set()
        self.cut("the link was closed")
        if self._thread.is_alive():
            self._thread.join()
        self._close_spare()

    def _close_spare(self) -> None:
        while self._spare:
            self._spare.pop().close()

    def _connect(self, lane: Lane) -> tuple[Connection, Peer, Welcome]:
        connection, peer, welcome = connect(self.address, self._credentials, lane, self._dial)
        with self._lock:
            self._open.add(connection)
            if lane in _LASTING:
                self._lasting.add(connection)
        if self._closed.is_set():
            self.cut("the link was closed")
        return connection, peer, welcome

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._stay()
            except Lost as error:
                self.cut(str(error), isinstance(error, LinkRefused))
                self.cause, self.refused = self._cut_for or (str(error), isinstance(error, LinkRefused))
            except Exception as error:  # without its thread the link would never come back
                log.exception("node %s at %s: the link has failed, and is made again", self.name, self.address)
                self.cut(str(error))
                self.cause, self.refused = str(error), False
            self._cut_for = None
            told = self.retires
            self._watcher.left(self)
            if self._closed.wait(self._backoff.failed()) and not told:
                self._watcher.left(self)  # for good: it retires since
        self._close_spare()

    def _stay(self) -> NoReturn:
        """Connect, and send heartbeats until the node is lost. Raises `Lost`."""
        connection, peer, welcome = self._connect("beat")
        try:
            self.name, self.incarnation = peer.name, welcome.incarnation
            self.cores, self.memory_budget = welcome.cores, welcome.memory_budget
            self._watcher.joined(self)
            self._backoff.success()
            self._beat(connection, peer)
        finally:
            self.drop(connection)

    def _beat(self, connection: Connection, peer: Peer) -> NoReturn:
        """Send a heartbeat each `HEARTBEAT`, one at a time, and notice the end of the connection at once.

        The first one after the node's certificate was revoked ends the link.
        """
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        sent, waits = 0.0, False
        told: tuple[Revocation, ...] = ()
        while True:
            now = time.monotonic()
            if self._may_end(now):
                self._closed.set()
                raise Lost("it is no longer one of the nodes")
            if now >= sent + HEARTBEAT:
                self._watcher.ticked()
                self._credentials.check(peer)
                if not waits:
                    revoked = self._credentials.revocations()
                    connection.send(Beat(revoked if revoked != told else ()), now + HEARTBEAT)
                    told = revoked
                    asked, waits = now, True
                sent = now
            if poll.poll(max(0.0, sent + HEARTBEAT - now) * 1000) and (answer := connection.arrived()):
                if not waits:
                    raise Lost("it has answered what was not asked")
                waits = False
                self._measure(time.monotonic() - asked)
                self._watcher.heard(self, expected(answer, BeatReply))

    def _may_end(self, now: float) -> bool:
        """Whether the link retires, and nothing is under way but what lasts as long as the link does."""
        if not self.retires:
            return False
        with self._lock:
            under_way = len(self._open) - len(self._lasting) - len(self._idle) - len(self._spare)
        return under_way <= 0 or now >= self._retires_at

    def _measure(self, seconds: float) -> None:
        self.round_trip += (seconds - self.round_trip) * (_SMOOTHING if self.round_trip else 1.0)
