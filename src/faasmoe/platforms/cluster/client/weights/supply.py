"""The supply of weights: the head of a pool gives nodes the pieces that they ask for, each on an own connection.

Only what functions of the catalogue map is read, so a node cannot ask for any other file.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

import msgspec

from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.client.membership import Membership
from faasmoe.platforms.cluster.client.weights.peers import Elsewhere, WeightPeers
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.content import PIECE, FunctionContent, WeightPiece
from faasmoe.platforms.cluster.protocol.dialling import connect
from faasmoe.platforms.cluster.protocol.frame import FrameKind, LinkRefused, Outgoing, framed
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import AskPieces, NoPieces
from faasmoe.platforms.cluster.weights.digest_book import OpenFile
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.closeable import Closeable

log = logging.getLogger(__name__)

_TICK = 0.25  # seconds between looks for nodes that have no connection
_LEARN_SECONDS = 3.0  # for the head to learn what another client has just deployed
_SEND_SECONDS = 60.0  # for a node to take a piece

FindContent = Callable[[str, str], FunctionContent | None]  # by a function's name and the content's digest


class WeightSupply(Closeable):
    """Threads that send pieces: one for each node that is connected, and one that starts them."""

    def __init__(
        self, membership: Membership, credentials: Credentials, others: Mapping[str, FunctionContent]
    ) -> None:
        """`others` are contents that nodes may fetch beside those of the catalogue, by name. They may change."""
        self._membership = membership
        self._others = others
        self._credentials = credentials
        self._lock = threading.Lock()  # of the connections
        self._serving: dict[NodeAddress, Connection | None] = {}  # None: it is being made
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weights", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(_TICK):
            for link in self._membership.links:
                with self._lock:
                    if not link.epoch or link.address in self._serving:
                        continue
                    self._serving[link.address] = None
                threading.Thread(target=self._serve, args=(link,), name="weights", daemon=True).start()

    def _serve(self, link: NodeLink) -> None:
        try:
            connection, _, _ = connect(link.address, self._credentials, "weights")
            try:
                with self._lock:
                    self._serving[link.address] = connection
                if not self._closed.is_set():
                    peers = WeightPeers(self._membership, self._credentials, link.name)
                    PieceSender(
                        connection, partial(content_of, self._membership, self._others), peers.read
                    ).serve()
            finally:
                connection.close()
        except LinkRefused as error:
            log.warning("node %s takes no weights: %s", link.name, error)
            self._closed.wait(1.0)
        except Lost as error:
            log.debug("node %s: the connection for weights has ended: %s", link.name, error)
        finally:
            with self._lock:
                del self._serving[link.address]

    def close(self) -> None:
        """End all connections. May be called twice."""
        self._closed.set()
        with self._lock:
            for connection in self._serving.values():
                if connection:
                    connection.cut()
        if self._thread.is_alive():
            self._thread.join()


class PieceSender:
    """The head's end of a connection for weights.

    `find` tells the content of a function that has a digest. `elsewhere` reads pieces that the server's own files do
    not have any more.
    """

    def __init__(self, connection: Connection, find: FindContent, elsewhere: Elsewhere) -> None:
        self._connection = connection
        self._find = find
        self._elsewhere = elsewhere
        self._rooms = [memoryview(bytearray(PIECE)) for _ in range(2)]

    def serve(self) -> NoReturn:
        """Answer the node until it is gone. Raises `Lost`."""
        while True:
            asked = self._connection.answered(None)
            if not isinstance(asked, AskPieces):
                raise Lost(f"{type(asked).__name__} is no question for weights")
            try:
                self._send(asked)
            except OSError as error:
                self._connection.send(NoPieces(f"on the server's machine: {error.strerror}"), _soon())
            except LookupError as error:
                self._connection.send(NoPieces(str(error)), _soon())

    def _send(self, asked: AskPieces) -> None:
        """Send each piece while the next one is read. Raises `LookupError` for what is not deployed, `OSError`, `Lost`.

        It waits for the network with one piece at most, as all nodes fetch at the same time.
        """
        content = self._find(asked.function, asked.digest)
        if content is None:
            raise LookupError("the function was removed, or deployed with other contents, meanwhile")
        pieces = list(content.pieces())
        if wrong := [number for number in asked.pieces if not 0 <= number < len(pieces)]:
            raise LookupError(f"the function has no piece {wrong[0]}")
        files: dict[int, OpenFile] = {}

        def read(number: int) -> memoryview:
            self._rooms.reverse()  # the other one is being sent
            room = self._rooms[0][: pieces[number].length]
            if not (asked.again and self._elsewhere(asked.function, content, number, room)):
                try:
                    _read(content, pieces[number], room, files, stack)
                except OSError:
                    if not self._elsewhere(asked.function, content, number, room):
                        raise
            return room

        with ExitStack() as stack, ThreadPoolExecutor(1, "piece") as reader:
            coming = [reader.submit(read, number) for number in asked.pieces[:1]]
            for number, following in zip_longest(asked.pieces, asked.pieces[1:]):
                room = coming.pop().result()
                if following is not None:
                    coming.append(reader.submit(read, following))
                head = msgspec.msgpack.encode(number)
                self._connection.push(Outgoing(framed(FrameKind.PIECE, head, [room])), _soon())


def content_of(
    membership: Membership, others: Mapping[str, FunctionContent], name: str, digest: str
) -> FunctionContent | None:
    """The content by that name, deployed or of `others`, if it has this digest.

    Waits a moment for it, as another client may deploy it now.
    """
    until = time.monotonic() + _LEARN_SECONDS
    while True:
        version = membership.version
        entry = membership.catalogue.entries.get(name)
        content = entry.content if entry else others.get(name)
        if content and content.digest == digest:
            return content
        if (left := until - time.monotonic()) <= 0:
            return None
        membership.wait(version, left)


def _read(
    content: FunctionContent, piece: WeightPiece, room: memoryview, files: dict[int, OpenFile], stack: ExitStack
) -> None:
    """Read a piece of the server's own file, which is opened once. Raises `OSError` that names it."""
    path = Path(content.files[piece.file].path)
    try:
        if piece.file not in files:
            files[piece.file] = stack.enter_context(OpenFile(path))
        files[piece.file].read(piece.offset, room)
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be read: {error.strerror}") from error


def _soon() -> float:
    return time.monotonic() + _SEND_SECONDS
