"""What clients order a node to do, carried out on its embedded platform."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from faasmoe.errors import OptionError, ServingError, UnknownFunction, UserError
from faasmoe.platforms.base import FunctionSpec, Platform
from faasmoe.platforms.cluster.agent.guest import Guest
from faasmoe.platforms.cluster.authority.signing import verifier
from faasmoe.platforms.cluster.catalogue import Catalogue
from faasmoe.platforms.cluster.protocol.frame import Outgoing
from faasmoe.platforms.cluster.protocol.messages import (
    Answered,
    AskCatalogue,
    Asked,
    AskNode,
    CatalogueEntry,
    CatalogueReport,
    CheckFits,
    DrainNode,
    Failure,
    Finished,
    Install,
    NodeReport,
    PrewarmFunctions,
    ReadPiece,
    StopFunctions,
)
from faasmoe.platforms.cluster.signed_entries import PURPOSE, check_signed
from faasmoe.platforms.cluster.weights import own_pieces
from faasmoe.platforms.cluster.weights.finder import WeightsFinder
from faasmoe.platforms.cluster.weights.node_weights import NodeWeights
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.closeable import Closeable

_FETCH_SECONDS = 100.0  # that an order to prewarm waits for weights; its client waits for 120
_REPLY_SECONDS = 30.0  # for a client to take a reply
LEAVE = 1.0  # seconds that an instance of a function that has moved stays: other clients learn it by heartbeats


class NodeOrders(Closeable):
    """The node's functions. For all threads.

    `folder` is for artifacts.
    """

    def __init__(
        self,
        node: str,
        platform: Platform,
        folder: Path,
        finder: WeightsFinder,
        report: Callable[[], NodeReport],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stamp = 0  # of the newest entry in the catalogue
        self.drains = False  # a client wants all functions to move elsewhere
        self._node = node
        self._platform = platform
        self._report = report
        self._catalogue = Catalogue()
        self._clock = clock
        self._lock = threading.Lock()  # of the catalogue
        self._leaving: dict[str, float] = {}  # functions that the node hosts no more, and when they stop
        self._doomed: set[str] = set()  # functions of an earlier pool that could not be removed yet
        self.weights = NodeWeights(node, folder, finder, self._placed, self._gone)

    def serve(self, guest: Guest) -> NoReturn:
        """Carry out the orders of a client until it is gone. Raises `Lost`."""
        verify = verifier(guest.peer.certificate, PURPOSE)
        while True:
            asked = guest.connection.asked(None)
            guest.check_order(asked)
            if isinstance(asked, ReadPiece):
                piece = Outgoing(own_pieces.answer(self.weights, asked))
                guest.connection.push(piece, time.monotonic() + _REPLY_SECONDS)
                continue
            try:
                if isinstance(asked, Install):
                    check_signed(asked.entries, verify)
                answer = self.answer(asked, guest.check_there)
            except OptionError as error:
                answer = Failure.of(error)
            guest.connection.send(answer, time.monotonic() + _REPLY_SECONDS)

    def answer(self, asked: Asked, check_there: Callable[[], None] = lambda: None) -> Answered:
        """Carry out an order. Raises `Lost` for what is none.

        `check_there` raises `Lost` if the node has left the pool of who gave the order, which `clear` is told then.
        """
        try:
            return self._carry_out(asked, check_there)
        except (ServingError, UserError) as error:
            return Failure.of(error)
        except OSError as error:  # of a file of this machine
            return Failure.of(OptionError(f"{error.filename or 'its files'}: {error.strerror or error}"))

    def _carry_out(self, asked: Asked, check_there: Callable[[], None]) -> Answered:
        match asked:
            case Install():
                with self._lock:
                    check_there()
                    self._install(self._catalogue.newer(asked.entries))
            case AskCatalogue():
                with self._lock:
                    return CatalogueReport(tuple(self._catalogue.beyond(asked.beyond)))
            case StopFunctions():
                self._platform.stop(asked.names)
            case PrewarmFunctions():
                self.weights.prepare(asked.names, _FETCH_SECONDS)
                self._platform.prewarm(asked.names)
            case CheckFits():
                self._platform.check_fits(asked.names)
            case DrainNode():
                with self._lock:
                    check_there()
                    self.drains = asked.wanted
            case AskNode():
                return self._report()
            case _:
                raise Lost(f"{type(asked).__name__} is no order")
        return Finished()

    def clear(self) -> None:
        """Remove all functions: the node is without a pool, or with another one.

        Raises `PlatformError`: then `tick` tries again to end them, and the catalogue is empty all the same.
        """
        with self._lock:
            names = list(self._catalogue.functions())
            self._catalogue, self.stamp, self.drains = Catalogue(), 0, False
            self._leaving.clear()
            self.weights.forget(names)
            self._doomed.update(names)
            self._platform.remove(names)
            self._doomed.difference_update(names)

    def hosts_any(self) -> bool:
        """Whether the node is to run any function."""
        with self._lock:
            return any(self._node in entry.hosts for entry in self._catalogue.functions().values())

    def tick(self) -> None:
        """Stop what has left the node `LEAVE` ago, unless it has come back. Raises `PlatformError`; try again then."""
        with self._lock:
            self._remove_doomed()
            due = [name for name, until in self._leaving.items() if self._clock() >= until]
            functions = self._catalogue.functions()
            gone = [name for name in due if name in functions and self._node not in functions[name].hosts]
            if gone:
                self._platform.stop(gone)
            for name in due:
                del self._leaving[name]

    def _remove_doomed(self) -> None:
        for name in list(self._doomed):
            if not self._catalogue.has(name):
                with suppress(UnknownFunction):
                    self._platform.remove([name])
            self._doomed.discard(name)

    def _install(self, entries: Iterable[CatalogueEntry]) -> None:
        entries = list(entries)
        before = self._catalogue.functions()
        removed = [entry.name for entry in entries if entry.spec is None and entry.name in before]
        self._platform.remove(removed)
        # at once: they are gone, whatever is wrong with the others
        self._catalogue.merge(entry for entry in entries if entry.spec is None)
        self.weights.forget(removed)
        there = [(entry, self.weights.enter(entry, entry.spec)) for entry in entries if entry.spec is not None]
        self._platform.deploy([self._own(entry, spec) for entry, spec in there])
        moved = [e.name for e in entries if e.spec and e.name in before and self._leaves(before[e.name], e)]
        self._leaving |= dict.fromkeys(moved, self._clock() + LEAVE)
        self._catalogue.merge(entries)
        self.stamp = self._catalogue.stamp

    def _placed(self, name: str) -> None:
        """The weights of a function have come: tell the platform which files it maps."""
        with self._lock:
            entry, spec = self._catalogue.functions().get(name), self.weights.spec(name)
            if entry and spec:
                self._platform.deploy([self._own(entry, spec)])

    def _gone(self, name: str) -> None:
        """The weights of a function may be removed."""
        with self._lock:
            if self._catalogue.has(name):
                self._platform.stop([name])

    def close(self) -> None:
        """End what gets weights. May be called twice."""
        self.weights.close()

    def _own(self, entry: CatalogueEntry, spec: FunctionSpec) -> FunctionSpec:
        """The function as this node has it: one node keeps its minimum of instances."""
        return spec if entry.hosts[:1] == (self._node,) else replace(spec, min_instances=0)

    def _leaves(self, before: CatalogueEntry, entry: CatalogueEntry) -> bool:
        return self._node in before.hosts and self._node not in entry.hosts
