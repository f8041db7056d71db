"""A TCP connection between a client and an agent."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.protocol import messages
from faasmoe.platforms.cluster.protocol.busy_poll import BusyPoll
from faasmoe.platforms.cluster.protocol.frame import Frame, FrameKind, FrameReader, LinkRefused, Outgoing, framed
from faasmoe.platforms.cluster.protocol.messages import Answered, Asked, ClusterMessage, TurnedAway
from faasmoe.platforms.cluster.protocol.tls import TlsSocket
from faasmoe.platforms.local.protocol.wire import Lost

_IDLE, _INTERVAL, _PROBES = 5, 2, 3  # seconds, seconds and number of the kernel's probes of a silent peer
_UNACKNOWLEDGED = 10_000  # milliseconds after which the kernel gives up what it has sent

_A = TypeVar("_A", bound=ClusterMessage)
_T = TypeVar("_T")


class Connection:
    """Carries frames both ways, one exchange at a time. For one thread; any thread may `cut` it.

    Its socket does not block. All that waits takes an instant of `time.monotonic` as its deadline, or None.
    """

    def __init__(self, sock: socket.socket | TlsSocket, most_head: int) -> None:
        self.socket = sock
        self.reader = FrameReader(most_head)
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._awaited = BusyPoll()
        if isinstance(sock, socket.socket):
            sock.setblocking(False)

    def fileno(self) -> int:
        """See `select.poll`."""
        return self.socket.fileno()

    def send(self, message: ClusterMessage, deadline: float | None) -> None:
        """Send a message. Raises `Lost`."""
        self.push(Outgoing(framed(FrameKind.MESSAGE, messages.encode(message))), deadline)

    def push(self, outgoing: Outgoing, deadline: float | None) -> None:
        """Send a frame. Raises `Lost`."""
        while not outgoing.flush(self.socket):
            poll = select.poll()
            poll.register(self.socket, select.POLLOUT)
            _wait(poll, deadline)

    def frame(self, deadline: float | None) -> Frame:
        """The next frame, without its body. Raises `Lost`."""
        while (frame := self.reader.head(self.socket)) is None:
            _wait(self._readable, deadline)
        return frame

    def batch(self) -> Frame:
        """The next frame, waited for as long as it takes, and for a moment awake. Raises `Lost`."""
        while True:
            if not (self.reader.holds or (isinstance(self.socket, TlsSocket) and self.socket.holds)):
                self._awaited.wait(self._readable, None)
            if frame := self.reader.head(self.socket):
                return frame
            _wait(self._readable, None)

    def fill(self, room: list[memoryview], deadline: float | None) -> None:
        """Receive the body of the last frame. Raises `Lost`."""
        self.reader.into(room)
        while not self.reader.fill(self.socket):
            _wait(self._readable, deadline)

    def received(self, read: Callable[[memoryview], _T], deadline: float | None) -> _T:
        """The next message, by what reads its kind. Raises `Lost`."""
        return read(_message(self.frame(deadline)))

    def asked(self, deadline: float | None) -> Asked:
        """The next message of a client. Raises `Lost`."""
        return self.received(messages.read_asked, deadline)

    def answered(self, deadline: float | None) -> Answered:
        """The next message of an agent. Raises `Lost`."""
        return self.received(messages.read_answered, deadline)

    def arrived(self) -> Answered | None:
        """The next message of an agent, if it has arrived whole. Raises `Lost`."""
        frame = self.reader.head(self.socket)
        return None if frame is None else messages.read_answered(_message(frame))

    def expect(self, wanted: type[_A], deadline: float | None) -> _A:
        """The next message of an agent, of the kind `wanted`. Raises `Lost`, `LinkRefused` if it is `TurnedAway`."""
        return expected(self.answered(deadline), wanted)

    def cut(self) -> None:
        """End the connection: whoever waits for it is told that it is lost. For any thread, and more than once."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """May be called twice."""
        self.socket.close()


def _wait(poll: select.poll, deadline: float | None) -> None:
    """Raises `Lost` at the deadline."""
    if not poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
        raise Lost("it does not answer")


def expected(answer: Answered, wanted: type[_A]) -> _A:
    """`answer` if it is of the kind `wanted`. Raises `LinkRefused` if it is `TurnedAway`, `Lost` if it is another."""
    if isinstance(answer, wanted):
        return answer
    if isinstance(answer, TurnedAway):
        raise LinkRefused(answer.cause)
    raise Lost(f"it has answered {type(answer).__name__} instead of {wanted.__name__}")


def _message(frame: Frame) -> memoryview:
    if frame.kind != FrameKind.MESSAGE or frame.body:
        raise Lost("a frame of another kind than a message")
    return frame.head


def bound(address: NodeAddress, option: str) -> socket.socket:
    """A socket with an address of this machine, for a listener. Raises `OptionError`, naming the option."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise OptionError(f"{option} {address}: {error.strerror or error}") from error
    return listener


def address_of(listener: socket.socket) -> NodeAddress:
    """The address that a listener has got."""
    host, port, *_ = listener.getsockname()
    return NodeAddress(host, port)


def prepare(sock: socket.socket) -> None:
    """Send small frames at once, and have the kernel notice a peer that is gone without a word."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, _IDLE),
        (socket.TCP_KEEPINTVL, _INTERVAL),
        (socket.TCP_KEEPCNT, _PROBES),
        (socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
