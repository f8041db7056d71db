"""The connection on which a node asks the head of its pool for pieces of weights.

Nodes cannot always connect to the server, so the server connects to the nodes, and is asked on a connection that it has
opened. No call waits behind a piece.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NoReturn

import msgspec

from faasmoe.platforms.cluster.protocol import messages
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.content import PIECE, FunctionContent
from faasmoe.platforms.cluster.protocol.frame import HEADER, Frame, FrameKind
from faasmoe.platforms.cluster.protocol.messages import AskPieces, NoPieces
from faasmoe.platforms.local.protocol.wire import Lost

AT_ONCE = 4  # pieces of a fetch that are in memory
_PIECE_SECONDS = 60.0  # for each piece, so the slowest network has 70 KB/s


class PiecesRefused(Exception):
    """Pieces cannot be had. The message says why."""


class PieceLane:
    """The agent's end of the connection. One thread at a time may fetch."""

    def __init__(self, connection: Connection) -> None:
        self.received = 0  # bytes
        self._connection = connection
        self._rooms = deque(memoryview(bytearray(PIECE)) for _ in range(AT_ONCE))

    def fetch(
        self, function: str, content: FunctionContent, wanted: Sequence[int], again: bool = False
    ) -> Iterator[tuple[int, memoryview]]:
        """Numbers of the pieces that are `wanted`, each with its bytes.

        These are valid while the next `AT_ONCE` - 1 pieces come, so they can be used meanwhile.

        Raises `Lost`, `PiecesRefused`. A fetch that is given up ends the connection: pieces are still to come on it.
        """
        lengths = [piece.length for piece in content.pieces()]
        ask = AskPieces(function=function, digest=content.digest, pieces=tuple(wanted), again=again)
        ended = False
        try:
            self._connection.send(ask, time.monotonic() + _PIECE_SECONDS)
            for number in wanted:
                yield number, self._next(number, lengths[number])
            ended = True
        except PiecesRefused:
            ended = True
            raise
        finally:
            if not ended:
                self.cut()

    def _next(self, number: int, length: int) -> memoryview:
        deadline = time.monotonic() + _PIECE_SECONDS
        frame = self._connection.frame(deadline)
        self._check(frame, number, length)
        self.received += HEADER + frame.head.nbytes + frame.body
        self._rooms.rotate()
        piece = self._rooms[0][:length]
        self._connection.fill([piece], deadline)
        return piece

    def _check(self, frame: Frame, number: int, length: int) -> None:
        if frame.kind == FrameKind.MESSAGE:
            answer = messages.read_asked(frame.head)
            if isinstance(answer, NoPieces) and not frame.body:
                raise PiecesRefused(answer.cause)
        if frame.kind != FrameKind.PIECE or frame.body != length or messages.read(_number, frame.head) != number:
            raise Lost("it has answered with what is not the piece that was asked for")

    def watch(self) -> NoReturn:
        """Wait until the other side has closed the connection, or it was cut. Raises `Lost`."""
        poll = select.poll()
        poll.register(self._connection, select.POLLRDHUP)  # the kernel adds errors; data is for who fetches
        poll.poll()
        raise Lost("closed by the other side")

    def cut(self) -> None:
        """End the connection. For any thread."""
        self._connection.cut()


_number = msgspec.msgpack.Decoder(int)
