"""Discovery: which nodes a cluster has now. Nodes may come and go while a client runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from faasmoe.errors import ServingError, UserError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.util.closeable import Closeable

log = logging.getLogger(__name__)

_PERIOD = 1.0  # seconds between two questions


class Discovery(Protocol):
    """Knows the nodes, whoever has started them. For one thread at a time."""

    def nodes(self) -> Sequence[NodeAddress]:
        """The addresses of the nodes now. Cheap: it is asked once a second. Raises nothing, but at the first time."""

    def close(self) -> None:
        """Give up what this object holds. May be called twice."""


class FileDiscovery:
    """Nodes that a file lists. While the file cannot be read the nodes are those of before.

    `read` returns the nodes that a file lists, and raises a `UserError` or a `ServingError`.
    """

    def __init__(self, file: Path, read: Callable[[Path], Sequence[NodeAddress]]) -> None:
        self._file = file
        self._read = read
        self._known: Sequence[NodeAddress] | None = None
        self._state: tuple[int, int, int] | None = None
        self._complaint = ""

    def nodes(self) -> Sequence[NodeAddress]:
        """See `Discovery`. The first time it raises what `read` raises."""
        try:
            state = self._state_now()
            if self._known is None or state != self._state:
                self._known, self._state, self._complaint = self._read(self._file), state, ""
        except (OSError, UserError, ServingError) as error:
            if self._known is None:
                raise
            if str(error) != self._complaint:
                log.warning("the nodes stay those of before: %s", error)
                self._complaint = str(error)
        return self._known

    def _state_now(self) -> tuple[int, int, int] | None:
        """What differs after the file has changed. None: it is read to have the error named."""
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def close(self) -> None:
        """See `Discovery`."""


class Lookout(Closeable):
    """A thread that asks a discovery once a second, and tells when the answer has changed."""

    def __init__(
        self,
        discovery: Discovery,
        known: Sequence[NodeAddress],
        changed: Callable[[Sequence[NodeAddress]], None],
        period: float = _PERIOD,
    ) -> None:
        """`known` are the nodes that need not be told. `period` is in seconds."""
        self._discovery = discovery
        self._known = list(known)
        self._changed = changed
        self._period = period
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(self._period):
            nodes = list(self._discovery.nodes())
            if nodes != self._known:
                self._known = nodes
                self._changed(nodes)

    def close(self) -> None:
        """Ask no more. May be called twice."""
        self._closed.set()
        self._thread.join()
