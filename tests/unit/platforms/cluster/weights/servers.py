"""A function with weights, and a server's end of a connection that gives them, in a thread of the test."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.client.weights.peers import Elsewhere
from faasmoe.platforms.cluster.client.weights.supply import PieceSender
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.content import PIECE, FunctionContent
from faasmoe.platforms.cluster.protocol.frame import MOST_HEAD
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry
from faasmoe.platforms.cluster.weights.contents import contents_of
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from faasmoe.platforms.cluster.weights.file_table import joined, row_of
from faasmoe.platforms.local.protocol.wire import Lost

LENGTH = PIECE + 1000  # bytes of the longer of two ranges: two pieces


def weights(folder: Path, seed: int = 0, size: int = 3 * PIECE) -> Path:
    """A file of random bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "w.bin").write_bytes(Random(seed).randbytes(size))
    return folder / "w.bin"


def function(file: Path, name: str = "f", shift: int = 0) -> FunctionSpec:
    """A function that maps two ranges of a file. Its artifact is beside it."""
    artifact = file.parent / f"{name}.json"
    artifact.write_bytes(joined(b'{"its": "content"}\n', [row_of(file, file.stat())]))
    files = (FileRange(file, 100 + shift, 50), FileRange(file, 5000 + shift, LENGTH))
    return FunctionSpec(name, "m:a", artifact, files=files)


def content_of(spec: FunctionSpec, book: DigestBook) -> FunctionContent:
    (content,) = contents_of([spec], book)
    assert content is not None
    return content


@contextmanager
def serving(entries: dict[str, CatalogueEntry], elsewhere: Elsewhere = lambda *_: False) -> Iterator[Connection]:
    """The node's end of a connection to a server with this catalogue."""
    ours, theirs = socket.socketpair()

    def find(function: str, digest: str) -> FunctionContent | None:
        content = entries[function].content if function in entries else None
        return content if content and content.digest == digest else None

    def run() -> None:
        with theirs, suppress(Lost):
            PieceSender(Connection(theirs, MOST_HEAD), find, elsewhere).serve()

    thread = threading.Thread(target=run)
    thread.start()
    connection = Connection(ours, MOST_HEAD)
    try:
        yield connection
    finally:
        connection.cut()
        thread.join()
        connection.close()
