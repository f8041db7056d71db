"""The agent of a node: takes connections of clients, a thread for each."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

from faasmoe.errors import FaasmoeError, OptionError
from faasmoe.platforms.cluster.agent.batches import Batches
from faasmoe.platforms.cluster.agent.guest import HELLO_SECONDS, Guest, meet, turn_away
from faasmoe.platforms.cluster.agent.guests import Guests
from faasmoe.platforms.cluster.agent.hosting import NodeHosting
from faasmoe.platforms.cluster.agent.orders import NodeOrders
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity, Role
from faasmoe.platforms.cluster.authority.revocations import Revocation, RevocationBook
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.messages import (
    HOSTING_LANES,
    Beat,
    BeatReply,
    NodeReport,
    Welcome,
    Willingness,
)
from faasmoe.platforms.cluster.weights.node_weights import NodeWeights
from faasmoe.platforms.cluster.weights.options import WeightsOptions
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.closeable import Closeable
from faasmoe.util.machine import cores

log = logging.getLogger(__name__)

_BACKLOG = 128
_MOST_CONNECTIONS = 512  # at once; more are closed at once
_MOST_HALF_OPEN = 64  # of these that have not shown yet whose they are
_SILENCE = 10.0  # seconds without a heartbeat after which a client is gone
_REPLY_SECONDS = 30.0  # for a client to take a reply
_TICK = 1.0  # seconds between looks at the claim
_PAUSE = 0.1  # seconds before connections are taken again, when there was no descriptor for one
_DRAIN_TICK = 0.02
_LAST = 2.0


class NodeAgent(Closeable):
    """Serves clients on `listener` in threads of its own, from `start` to `close`."""

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        identity: ClusterIdentity,
        options: LocalOptions,
        preload: Sequence[str],
        weights: WeightsOptions,
        platform: type[LocalPlatform] = LocalPlatform,
        hosting: Callable[[NodeWeights], NodeHosting] | None = None,
    ) -> None:
        """Starts the embedded platform, whose instances may import the modules `preload` before they load a function.

        `platform` is for tests. `hosting` makes what runs orchestrators here, if the node is to run any. Raises
        `PlatformError` if the platform does not start, `OptionError` if what it knows of revoked certificates is
        damaged.
        """
        self.name = name
        self.incarnation = uuid.uuid4().hex
        self._listener = listener
        self._identity = identity
        self._guests = Guests(RevocationBook(identity.folder, identity.clock))
        self._clients = platform
        self._platform = platform(replace(options, preload=tuple(preload)))
        self._welcome = Welcome(incarnation=self.incarnation, cores=cores(), memory_budget=options.memory_budget)
        self._orders = NodeOrders(
            name, self._platform, self._platform.folder / "artifacts", weights.finder(), self.report
        )
        self._hosting = hosting(self._orders.weights) if hosting else None
        self._trouble = ""  # of the last tick
        self._lock = threading.Lock()  # of the number of threads
        self._threads = 0
        self._half_open = threading.BoundedSemaphore(_MOST_HALF_OPEN)
        self._state: Willingness = "ready"
        self._closed = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="agent", daemon=True)

    def start(self) -> None:
        """Take connections from now on."""
        self._listener.listen(_BACKLOG)
        self._acceptor.start()

    def drain(self, seconds: float) -> None:
        """Have the server move all functions elsewhere; then take no more calls, and wait for those that run.

        All this takes so many seconds at most, of which `_LAST` are for calls that run.
        """
        self._state = "draining"
        deadline = time.monotonic() + seconds
        self._wait(lambda: not self._is_needed() and not self._hosts_any(), deadline - min(_LAST, seconds / 2))
        self._state = "drained"
        self._wait(lambda: not self._guests.running, deadline)

    def _wait(self, condition: Callable[[], bool], deadline: float) -> None:
        while time.monotonic() < deadline and not condition():
            self._closed.wait(_DRAIN_TICK)

    def _is_needed(self) -> bool:
        """Whether the node hosts functions of a server that is there to move them."""
        return self._guests.headed and self._orders.hosts_any()

    def _hosts_any(self) -> bool:
        return self._hosting is not None and self._hosting.running > 0

    def _state_now(self) -> Willingness:
        return "draining" if self._state == "ready" and self._orders.drains else self._state

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while not self._closed.is_set():
            ready = poll.poll(_TICK * 1000)
            self._tick()
            if ready and not self._closed.is_set():
                try:
                    self._greet(*self._listener.accept())
                except OSError:  # the client is gone already, or no descriptor is left
                    self._closed.wait(_PAUSE)

    def _tick(self) -> None:
        """See whether the node still has a pool, and to functions that have left. What fails, the next tick does."""
        trouble = ""
        try:
            if self._guests.expired():
                log.warning("node %s: the server that had it is gone; its functions are removed", self.name)
                self._clear()
            self._orders.tick()
        except FaasmoeError as error:
            trouble = str(error)
            if trouble != self._trouble:
                log.error("node %s: functions that have left it are not stopped yet: %s", self.name, error)
        except Exception as error:  # a defect must not end the thread: nobody could connect any more
            trouble = repr(error)
            if trouble != self._trouble:
                log.exception("node %s: functions that have left it are not stopped", self.name)
        self._trouble = trouble

    def _greet(self, sock: socket.socket, address: tuple[str, int]) -> None:
        with self._lock:
            full = self._threads >= _MOST_CONNECTIONS or not self._half_open.acquire(blocking=False)
            self._threads += not full
        if full:
            log.warning("node %s: too many connections are open; one from %s is refused", self.name, address[0])
            sock.close()
            return
        try:
            threading.Thread(target=self._serve, args=(sock, address[0]), name="client", daemon=True).start()
        except RuntimeError as error:
            log.warning("node %s: a connection from %s is refused: %s", self.name, address[0], error)
            sock.close()
            self._half_open.release()
            with self._lock:
                self._threads -= 1

    def _serve(self, sock: socket.socket, address: str) -> None:
        try:
            try:
                guest = meet(sock, self._identity, self.name, address)
            finally:
                self._half_open.release()
            if guest is not None:
                self._welcome_guest(guest, address)
        finally:
            with self._lock:
                self._threads -= 1

    def _welcome_guest(self, guest: Guest, address: str) -> None:
        try:
            lost = self._admit(guest)
        except Lost as error:
            turn_away(guest.connection, self.name, address, error)
            return
        try:
            if lost:
                self._clear()
            guest.connection.send(self._welcome, time.monotonic() + HELLO_SECONDS)
            self._host(guest)
        except Lost as error:
            log.debug("node %s: a connection from %s has ended: %s", self.name, address, error)
        except FaasmoeError as error:
            log.error("node %s: a connection from %s is ended: %s", self.name, address, error)
        finally:
            self._guests.leaves(guest)
            guest.connection.close()

    def _admit(self, guest: Guest) -> bool:
        """Returns whether another pool has lost the node by it. Raises `LinkRefused`."""
        guest.check_rights()
        if guest.hello.lane in HOSTING_LANES and not self._hosting:
            raise LinkRefused("it runs no orchestrators: faasmoe node --orchestrators N would have it run some")
        return self._guests.admit(guest)

    def _clear(self) -> None:
        """The node has lost its server. Raises `PlatformError`; then `tick` goes on with it."""
        try:
            self._orders.clear()
        finally:
            if self._hosting:
                self._hosting.clear()

    def _host(self, guest: Guest) -> None:
        """Serve an admitted client until it is gone. Raises `Lost`, unless it was an orchestrator that has ended."""
        if guest.hello.lane == "calls":
            with self._clients(folder=self._platform.folder) as pool:
                lacks = self._orders.weights.lacks
                batches = Batches(guest.connection, pool, lambda: self._state == "drained", lacks)
                with self._guests.calling(guest, batches):
                    batches.serve()
        if guest.hello.lane == "beat":
            self._beat(guest)
        if guest.hello.lane == "weights":
            self._orders.weights.serve(guest.connection)
        if self._hosting and guest.hello.lane == "orchestrator":
            self._hosting.run(guest.connection)
            return
        if self._hosting and guest.hello.lane == "hosting":
            self._hosting.serve(guest)
        self._orders.serve(guest)

    def _beat(self, guest: Guest) -> NoReturn:
        while True:
            asked = guest.connection.asked(time.monotonic() + _SILENCE)
            if not isinstance(asked, Beat):
                raise Lost(f"{type(asked).__name__} is no heartbeat")
            if asked.revoked:
                self._revoke(guest, asked.revoked)
            reply = BeatReply(self._orders.stamp, self._state_now(), self._guests.traffic)
            guest.connection.send(reply, time.monotonic() + _REPLY_SECONDS)

    def _revoke(self, guest: Guest, revoked: tuple[Revocation, ...]) -> None:
        """Raises `Lost` if `guest` is not the server's."""
        if guest.peer.role != Role.SERVER:
            raise Lost(f"revocations of {guest.peer.role} {guest.peer.name}")
        try:
            self._guests.revoke(revoked)
        except OptionError as error:
            log.error("node %s: revoked certificates are good again when it is started anew: %s", self.name, error)

    @property
    def claimed(self) -> bool:
        """Whether a server has the node, or had it a moment ago."""
        return bool(self._guests.pool)

    @property
    def headed(self) -> bool:
        """Whether the server that has the node is connected to it."""
        return self._guests.headed

    def report(self) -> NodeReport:
        """The state of the node."""
        return NodeReport(
            state=self._state_now(),
            pool=self._platform.status(),
            traffic=self._guests.traffic,
            work=dict(self._guests.work),
            weights=self._orders.weights.report(),
            orchestrators=self._hosting.running if self._hosting else 0,
        )

    def close(self) -> None:
        """End all connections and the embedded platform. May be called twice."""
        self._closed.set()
        self._listener.close()
        if self._acceptor.is_alive():
            self._acceptor.join()
        self._guests.cut()
        if self._hosting:
            self._hosting.close()
        self._orders.close()
        self._platform.close()
