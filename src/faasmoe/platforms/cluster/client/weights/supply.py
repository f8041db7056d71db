"""The supply of weights: the head of a pool gives nodes the pieces that they ask for, each on an own connection.

Only what functions of the catalogue map is read, so a node cannot ask for any other file.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.client.membership import Membership
from faasmoe.platforms.cluster.client.weights.peers import Elsewhere, WeightPeers
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.content import PIECE, FunctionContent, WeightPiece
from faasmoe.platforms.cluster.protocol.frame import FrameKind, LinkRefused, Outgoing, framed
from faasmoe.platforms.cluster.protocol.messages import AskPieces, NoPieces
from faasmoe.platforms.cluster.weights.digest_book import OpenFile
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.closeable import Closeable

log = logging.getLogger(__name__)

_TICK = 0.25  # seconds between looks for nodes that have no connection
_LEARN_SECONDS = 3.0  # for the head to learn what another client has just deployed
_SEND_SECONDS = 60.0  # for a node to take a piece
_END_SECONDS = 2.0  # for threads to end, of which one may read a file that does not come

_T = TypeVar("_T")

FindContent = Callable[[str, str], FunctionContent | None]  # by a function's name and the content's digest


class WeightSupply(Closeable):
    """Threads that send pieces: one for each node that is connected, and one that starts them."""

    def __init__(self, membership: Membership, others: Mapping[str, FunctionContent]) -> None:
        """`others` are contents that nodes may fetch beside those of the catalogue, by name. They may change."""
        self._membership = membership
        self._others = others
        self._lock = threading.Lock()  # of what follows
        self._connections: dict[NodeLink, Connection | None] = {}  # None: it is being made
        self._threads: set[threading.Thread] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weights", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(_TICK):
            for link in self._membership.links:
                with self._lock:
                    if not link.epoch or link in self._connections:
                        continue
                    self._connections[link] = None
                    thread = threading.Thread(target=self._serve, args=(link,), name="weights", daemon=True)
                    self._threads.add(thread)
                thread.start()

    def _serve(self, link: NodeLink) -> None:
        try:
            connection = link.open("weights")
            try:
                with self._lock:
                    self._connections[link] = connection
                if not self._closed.is_set():
                    peers = WeightPeers(self._membership, link.name)
                    PieceSender(
                        connection, partial(content_of, self._membership, self._others), peers.read
                    ).serve()
            finally:
                link.drop(connection)
        except LinkRefused as error:
            log.warning("node %s takes no weights: %s", link.name, error)
            self._closed.wait(1.0)
        except Lost as error:
            log.debug("node %s: the connection for weights has ended: %s", link.name, error)
        finally:
            with self._lock:
                del self._connections[link]
                self._threads.discard(threading.current_thread())

    def close(self) -> None:
        """End all connections, and wait for their threads, but not for a file that does not come.

        May be called twice.
        """
        self._closed.set()
        self._thread.join()  # it starts no others from now on
        with self._lock:
            threads = list(self._threads)
            for connection in self._connections.values():
                if connection:
                    connection.cut()
        until = time.monotonic() + _END_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


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

        def read(number: int) -> tuple[int, memoryview]:
            self._rooms.reverse()  # the other one is being sent
            room = self._rooms[0][: pieces[number].length]
            if not (asked.again and self._elsewhere(asked.function, content, number, room)):
                try:
                    _read(content, pieces[number], room, files, stack)
                except OSError:
                    if not self._elsewhere(asked.function, content, number, room):
                        raise
            return number, room

        with ExitStack() as stack:
            reads = map(partial(_begun, read), asked.pieces)  # each begins when it is asked for
            coming = next(reads, None)
            try:
                while coming is not None:
                    number, room = coming.result()
                    coming = next(reads, None)
                    head = msgspec.msgpack.encode(number)
                    self._connection.push(Outgoing(framed(FrameKind.PIECE, head, [room])), _soon())
            finally:
                wait([coming] if coming else [])  # before its file is closed


def _begun(work: Callable[[int], _T], number: int) -> Future[_T]:
    """Have a thread do this. Unlike one of a `ThreadPoolExecutor` it keeps no process from ending."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work(number))
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="piece", daemon=True).start()
    return future


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
