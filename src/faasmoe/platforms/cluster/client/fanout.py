"""Fan-out over nodes: one frame to each node that a batch touches, and one back."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from faasmoe.errors import DeadlineExceeded, PlatformError
from faasmoe.platforms.base import Call, Replies
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.client.membership import Membership
from faasmoe.platforms.cluster.client.orders import ClusterOrders
from faasmoe.platforms.cluster.client.rows import runs_of, views_of
from faasmoe.platforms.cluster.client.weights.lacking import LackingWeights
from faasmoe.platforms.cluster.placement.routing_table import RoutingTable
from faasmoe.platforms.cluster.protocol import call_batch, messages
from faasmoe.platforms.cluster.protocol.busy_poll import BusyPoll
from faasmoe.platforms.cluster.protocol.call_batch import GRID, BatchCall, BatchReplies, CallBatch
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import Frame, FrameKind, Outgoing, framed
from faasmoe.platforms.cluster.protocol.messages import Failure
from faasmoe.platforms.local.protocol.wire import Lost

_NUMBERS = 1 << 32  # that a header can hold
_MOST_ATTEMPTS = 20  # a batch that loses as many nodes would lose any
_TICK = 0.25  # seconds; the longest wait between two looks at the deadline
_WAIT = 0.05  # seconds between looks for a node while there is none
_GRACE = 0.5  # seconds: the node gives up a little earlier than we do, and knows why


@dataclass(slots=True)
class _Shipment:
    """Calls on their way to a node and back."""

    link: NodeLink
    epoch: int
    connection: Connection
    number: int
    calls: list[int]  # indices in the batch
    work: float
    outgoing: Outgoing | None  # None when all is sent
    replies: BatchReplies | None = None  # the head, when it has come
    room: memoryview | None = None  # for their bytes


class ClusterFanout:
    """Runs batches of calls, one at a time. For one thread."""

    def __init__(self, membership: Membership, orders: ClusterOrders) -> None:
        self._membership = membership
        self._orders = orders
        self._table = RoutingTable()
        self._lacking = LackingWeights()
        self._version = -1  # of the membership that the table has
        self._links: dict[str, NodeLink] = {}  # those in the table
        self._shipments: dict[int, _Shipment] = {}  # by descriptor
        self._rooms: list[memoryview] = []  # for replies, used again by the next batch
        self._rooms_used = 0
        self._number = 0
        self._waiting: list[int] = []  # calls that have no node
        self._poll = select.poll()
        self._awaited = BusyPoll()

    def run(
        self,
        calls: Sequence[Call],
        deadline: float,
        shared: Buffer | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Replies:
        """See `Platform.invoke_many`."""
        self._calls, self._deadline, self._attempts = calls, deadline, 1
        self._shared = None if shared is None else memoryview(shared).cast("B")
        self._replies, self._rooms_used, self._cause = Replies(len(calls)), 0, ""
        self._orders.check_known([call.function for call in calls])
        readings = self._membership.readings
        self._work_of = [call.work * readings.get(call.function, 1) for call in calls]  # activated bytes
        try:
            self._ship(range(len(calls)))
            if meanwhile is not None:
                while any(shipment.outgoing for shipment in self._shipments.values()):
                    self._step()
                meanwhile()
            while self._shipments or self._waiting:
                self._step()
        except BaseException:
            self._abandon()
            raise
        return self._replies

    def _ship(self, indices: Iterable[int]) -> None:
        """Send calls to nodes. Those that have none wait for one."""
        left = list(indices)
        while left:
            self._refresh()
            routed = self._table.assign([(self._calls[i].function, self._work_of[i]) for i in left])
            self._waiting += [left[i] for i in routed.unplaced]
            again: list[int] = []
            for node, chosen in routed.frames.items():
                its = [left[i] for i in chosen]
                try:
                    self._send(self._links[node], its)
                except Lost as error:
                    self._table.replied(node, self._table.epoch(node), self._work(its))
                    self._lose(self._links[node], self._table.epoch(node), str(error))
                    again += its
            left = again

    def _refresh(self) -> None:
        """Have the table know the nodes and hosts of now."""
        membership = self._membership
        if self._version == membership.version and not self._lacking.due:
            return
        self._version = membership.version
        callable_ = {link.name: link for link in membership.callable()}
        for name in self._links.keys() - callable_.keys():
            self._table.leave_out(name)
        for name, link in callable_.items():
            if self._links.get(name) is None or self._table.epoch(name) != link.epoch:
                self._table.take_in(name, link.epoch, float(link.cores))
        self._links = callable_
        self._table.route(self._lacking.routed(membership.hosts, callable_.keys()))

    def _send(self, link: NodeLink, its: list[int]) -> None:
        """Raises `Lost`."""
        epoch = self._table.epoch(link.name)
        connection = link.take()
        self._number = (self._number + 1) % _NUMBERS
        outgoing = Outgoing(self._frame([self._calls[i] for i in its]))
        try:
            done = outgoing.flush(connection.socket)
        except Lost:
            link.drop(connection)
            raise
        self._shipments[connection.fileno()] = _Shipment(
            link, epoch, connection, self._number, its, self._work(its), None if done else outgoing
        )
        self._poll.register(connection, select.POLLIN if done else select.POLLIN | select.POLLOUT)

    def _frame(self, calls: Sequence[Call]) -> list[Buffer]:
        """A batch: what each call has, and of what they share the rows that they read."""
        table, parts = [], list[Buffer]()
        for call in calls:
            table.append(BatchCall(call.function, sum(map(len, call.payload)), call.reply_bytes, call.work))
            parts += call.payload
        seconds = max(0.0, round((self._deadline - time.monotonic()) / GRID) * GRID)
        length, row, runs = 0, 0, list[int]()
        if self._shared is not None and (length := self._shared.nbytes):
            row, runs = length, [0, 1]
            if all(len(call.rows) for call in calls):
                row, runs = calls[0].row_bytes, runs_of([call.rows for call in calls])
            parts += views_of(self._shared, row, runs)
        head = messages.encode(CallBatch(seconds, table, length, row, runs))
        return framed(FrameKind.BATCH, head, parts, self._number)

    def _work(self, its: Iterable[int]) -> float:
        return sum(self._work_of[i] for i in its)

    def _step(self) -> None:
        """Wait for what comes next: room to send in, replies, the end of a connection, a node to send to."""
        left = self._deadline + _GRACE - time.monotonic()
        if left <= 0:
            raise self._too_late()
        if self._waiting:
            self._refresh()
            waiting, self._waiting = self._waiting, []
            self._ship(waiting)
        if not self._shipments:
            self._membership.wait(self._version, min(left, _WAIT))
            return
        for fd, _ in self._awaited.wait(self._poll, min(left, _WAIT if self._waiting else _TICK)):
            shipment = self._shipments[fd]
            try:
                self._progress(shipment)
            except Lost as error:
                self._forget(fd)
                shipment.link.drop(shipment.connection)
                self._lose(shipment.link, shipment.epoch, str(error))
                self._attempts += 1
                if self._attempts > _MOST_ATTEMPTS:
                    name = self._calls[shipment.calls[0]].function
                    cause = f"{_MOST_ATTEMPTS} attempts failed; {self._cause}"
                    raise PlatformError(self._membership.platform, name, cause) from error
                self._ship(shipment.calls)

    def _progress(self, shipment: _Shipment) -> None:
        """Raises `Lost`, or the error that the node has answered."""
        connection = shipment.connection
        if shipment.outgoing and shipment.outgoing.flush(connection.socket):
            shipment.outgoing = None
            self._poll.modify(connection, select.POLLIN)
        if shipment.replies is None:
            frame = connection.reader.head(connection.socket)
            if frame is None:
                return
            if frame.kind == FrameKind.MESSAGE:
                self._failed(shipment, frame)
                return
            self._begin(shipment, frame)
        if connection.reader.fill(connection.socket):
            self._finish(shipment)

    def _begin(self, shipment: _Shipment, frame: Frame) -> None:
        if frame.kind != FrameKind.REPLIES or shipment.outgoing:
            raise Lost("it has answered what was not asked")
        replies = call_batch.read_replies(frame.head, frame.body, len(shipment.calls))
        foreseen = sum(self._calls[i].reply_bytes for i in shipment.calls)
        if frame.number != shipment.number or frame.body > foreseen:
            raise Lost("it has answered another batch")
        room = self._room(foreseen)[: frame.body]
        shipment.replies, shipment.room = replies, room
        shipment.connection.reader.into([room])

    def _finish(self, shipment: _Shipment) -> None:
        replies, room, at = shipment.replies, shipment.room, 0
        if replies is None or room is None:
            return
        for index, length, busy, memory in zip(
            shipment.calls, replies.lengths, replies.busy, replies.memory, strict=True
        ):
            self._replies.data[index] = room[at : at + length]
            self._replies.busy[index], self._replies.memory[index] = busy, memory
            at += length
        self._forget(shipment.connection.fileno())
        shipment.link.give_back(shipment.connection)

    def _failed(self, shipment: _Shipment, frame: Frame) -> None:
        """Send the calls elsewhere if the node has not begun them. Raises the error otherwise."""
        failure = messages.read_answered(frame.head)
        if not isinstance(failure, Failure) or frame.body or shipment.outgoing:
            raise Lost("it has answered what was not asked")
        self._forget(shipment.connection.fileno())
        shipment.link.give_back(shipment.connection)
        if failure.kind == "draining":
            self._membership.drained(shipment.link)
            self._waiting += shipment.calls
            return
        if failure.kind == "weights":
            self._lacks(shipment.link.name, failure)
            self._waiting += shipment.calls
            return
        raise failure.error_of(self._membership.platform, shipment.link.name)

    def _lacks(self, node: str, failure: Failure) -> None:
        """Have others called for what the node lacks. Raises `PlatformError` if all have failed to get it."""
        self._lacking.note(node, failure)
        self._cause = f"node {node}: {failure.function}: {failure.cause}"
        ready = self._links.keys()
        for function in failure.lacking:
            if hopeless := self._lacking.hopeless(function, ready):
                raise hopeless[1].error_of(self._membership.platform, hopeless[0])
            hosts = self._membership.hosts.get(function, ())
            if substitute := self._lacking.substitute(function, hosts, ready):
                self._lacking.asked(substitute, function)
                self._orders.prepare(self._links[substitute], function)

    def _forget(self, fd: int) -> None:
        shipment = self._shipments.pop(fd)
        self._poll.unregister(fd)
        self._table.replied(shipment.link.name, shipment.epoch, shipment.work)

    def _lose(self, link: NodeLink, epoch: int, cause: str) -> None:
        self._cause = f"node {link.name} was lost: {cause}"
        self._membership.lose(link, epoch, cause)

    def _room(self, nbytes: int) -> memoryview:
        """Room for replies, which are valid until the next batch."""
        at = self._rooms_used
        self._rooms_used += 1
        if at == len(self._rooms):
            self._rooms.append(memoryview(bytearray(nbytes)))
        elif self._rooms[at].nbytes < nbytes:
            self._rooms[at] = memoryview(bytearray(nbytes))
        return self._rooms[at]

    def _too_late(self) -> DeadlineExceeded:
        waiting = [i for shipment in self._shipments.values() for i in shipment.calls] or self._waiting
        cause = self._cause or ("it has not answered" if self._shipments else "no node takes it")
        if not self._shipments and (causes := self._membership.causes()):
            cause = f"no node takes it: {causes}"
        tried = "1 attempt" if self._attempts == 1 else f"{self._attempts} attempts"
        name = self._calls[waiting[0]].function
        cause = f"no answer within the deadline after {tried}: {cause}"
        return DeadlineExceeded(self._membership.platform, name, cause)

    def _abandon(self) -> None:
        """End a batch without its replies: those that still come must not be taken for later ones."""
        for fd, shipment in list(self._shipments.items()):
            self._forget(fd)
            shipment.link.drop(shipment.connection)
        self._waiting = []
