"""The weights of a node: of which functions they are there, and a thread that gets those that it is to run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from faasmoe.errors import FaasmoeError, OptionError
from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry, Failure, WeightsReport
from faasmoe.platforms.cluster.weights.artifacts import NodeArtifacts
from faasmoe.platforms.cluster.weights.cache import CacheFull
from faasmoe.platforms.cluster.weights.finder import FoundWeights, WeightsFinder
from faasmoe.platforms.cluster.weights.node_function import NodeFunction
from faasmoe.platforms.cluster.weights.piece_lane import PieceLane, PiecesRefused
from faasmoe.platforms.local.protocol.wire import Lost
from faasmoe.util.closeable import Closeable

log = logging.getLogger(__name__)

_RETRY_SECONDS = 10.0  # after a failure
_TICK = 1.0  # seconds between looks for what may be tried again
_END_SECONDS = 10.0  # for the thread to end; it may wait for another agent that fetches the same
_HOSTED, _ASKED = 1, 2  # how much weights are wanted


class NodeWeights(Closeable):
    """For all threads.

    `folder` is for artifacts. `placed` is called by a thread of this object when the weights of a function have come,
    before it counts as placed; `gone` before they may be removed.
    """

    def __init__(
        self,
        node: str,
        folder: Path,
        finder: WeightsFinder,
        placed: Callable[[str], None],
        gone: Callable[[str], None],
    ) -> None:
        self._node = node
        self._artifacts = NodeArtifacts(folder)
        self._finder = finder
        self._placed, self._gone = placed, gone
        self._functions: dict[str, NodeFunction] = {}
        self._changed = threading.Condition()  # its lock is that of everything here
        self._lane: PieceLane | None = None
        self._fetching: PieceLane | None = None  # the lane that the thread uses now
        self._received = 0  # bytes, by lanes that have ended
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="weights", daemon=True)
        self._thread.start()

    # What the agent tells and asks

    def enter(self, entry: CatalogueEntry, spec: FunctionSpec) -> FunctionSpec:
        """Take over a function that is deployed. Returns it as this node has it.

        If it is one of the node's, its weights are got in the background. Raises `OptionError`.
        """
        hosted = self._node in entry.hosts
        content = entry.content
        with self._changed:
            known = self._functions.get(entry.name)
        if content is None or known is None or known.content != content:
            self.forget([entry.name])
            if content is None:  # there is nothing to place
                return spec
            known = self._make(entry.name, spec, content, hosted)
        with self._changed:
            self._functions[entry.name] = known
            known.spec = replace(spec, artifact=known.spec.artifact, files=known.spec.files)
            known.hosted = hosted
            known.wanted = max(known.wanted if known.wanted == _ASKED else 0, _HOSTED * hosted)
            self._changed.notify_all()
            return known.spec

    def spec(self, name: str) -> FunctionSpec | None:
        """A function as this node has it now."""
        with self._changed:
            function = self._functions.get(name)
            return function.spec if function else None

    def forget(self, names: Iterable[str]) -> None:
        """These functions are no longer deployed. Fetched weights stay in the cache."""
        with self._changed:
            gone = [self._functions.pop(name) for name in names if name in self._functions]
        for function in gone:
            function.release()
            with suppress(OSError):
                function.spec.artifact.unlink(missing_ok=True)

    def prepare(self, names: Sequence[str], seconds: float) -> None:
        """Get the weights of these functions before all others, and wait for them.

        Raises `PlatformError` if one fails, or takes longer than so many seconds.
        """
        if failure := self.get(names, seconds):
            raise failure.error_of("nodes", self._node)

    def get(self, names: Sequence[str], seconds: float) -> Failure | None:
        """As `prepare`, but returns why weights are not there."""
        with self._changed:
            its = {name: function for name in names if (function := self._functions.get(name))}
            for function in its.values():
                if not function.placed:
                    function.wanted, function.cause, function.retry_at = _ASKED, "", 0.0
            self._changed.notify_all()
            self._changed.wait_for(lambda: all(f.placed or f.cause for f in its.values()), seconds)
        return self.lacks(names)

    def lacks(self, names: Iterable[str]) -> Failure | None:
        """Why calls of these functions cannot run here, or not yet. On the path of every call."""
        lacking = [name for name in names if (it := self._functions.get(name)) and not it.placed]
        if not lacking:
            return None
        function, error = self._functions.get(lacking[0]), "elsewhere"
        cause = "its weights are not on this node, which does not host it"
        if function and function.cause:
            error, cause = "failed", function.cause
        elif function and function.wanted:
            error, cause = "under way", "its weights are on their way"
        return Failure(kind="weights", function=lacking[0], error=error, cause=cause, lacking=tuple(lacking))

    def report(self) -> WeightsReport:
        """See `WeightsReport`."""
        with self._changed:
            lacking = [f for f in self._functions.values() if f.hosted and not f.placed]
            received = self._received + (self._lane.received if self._lane else 0)
            return WeightsReport(len(lacking), received, next((f.cause for f in lacking if f.cause), ""))

    def placed(self, name: str, digest: str) -> tuple[FunctionSpec, FunctionContent] | None:
        """A function whose content has this digest, as this node has it, if its weights are here."""
        with self._changed:
            function = self._functions.get(name)
            there = function is not None and function.placed and function.content.digest == digest
            return (function.spec, function.content) if function and there else None

    def serve(self, connection: Connection) -> None:
        """Fetch over this connection until it ends, or another one comes. Raises `Lost`."""
        lane = PieceLane(connection)
        with self._changed:
            before, self._lane = self._lane, lane
            self._changed.notify_all()
        if before:
            before.cut()
        try:
            lane.watch()
        finally:
            lane.cut()
            with self._changed:
                self._changed.wait_for(lambda: self._fetching is not lane)
                self._received += lane.received
                if self._lane is lane:
                    self._lane = None

    def close(self) -> None:
        """End the thread. May be called twice."""
        with self._changed:
            self._closed = True
            lane = self._lane
            self._changed.notify_all()
        if lane:
            lane.cut()
        self._thread.join(_END_SECONDS)
        self.forget(list(self._functions))

    # The thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (due := self._due()) is None:
                    self._changed.wait(_TICK)
                if self._closed or due is None:
                    return
                self._fetching = self._lane
            try:
                self._get(*due)
            finally:
                with self._changed:
                    self._fetching = None
                    self._changed.notify_all()

    def _due(self) -> tuple[str, NodeFunction] | None:
        """The function whose weights are wanted most, of those that can be got now."""
        now = time.monotonic()
        due = [
            (name, function)
            for name, function in self._functions.items()
            if function.wanted and not function.placed and now >= function.retry_at
            and (self._lane or not function.searched)
        ]  # fmt: skip
        return max(due, key=lambda each: each[1].wanted, default=None)

    def _get(self, name: str, function: NodeFunction) -> None:
        try:
            found = self._found(name, function)
            if found:
                self._settle(name, function, found)
        except Lost as error:
            log.info("weights of %s have not come: %s", name, error)
            with self._changed:
                if self._lane is self._fetching:
                    self._lane = None
        except (PiecesRefused, OSError, FaasmoeError) as error:
            cause = str(error)
            if isinstance(error, OSError) and error.strerror:
                cause = f"{error.strerror} ({error.filename})" if error.filename else error.strerror
            self._failed(name, function, cause)
        except Exception as error:  # a defect must not end the thread: it gets all other weights as well
            log.exception("weights of %s", name)
            self._failed(name, function, type(error).__name__)

    def _failed(self, name: str, function: NodeFunction, cause: str) -> None:
        """They are tried again after a while."""
        paths = ", ".join(file.path for file in function.content.files)
        log.error("weights of %s (%s) cannot be had: %s", name, paths, cause)
        function.release()
        with self._changed:
            function.cause = f"its weights ({paths}) cannot be had: {cause}"
            function.wanted = _HOSTED * function.hosted
            function.retry_at = time.monotonic() + _RETRY_SECONDS
            self._changed.notify_all()

    def _found(self, name: str, function: NodeFunction) -> FoundWeights | None:
        if not function.searched:
            if found := self._finder.known(function.content) or self._finder.here(name, function.content):
                return found
            function.searched = True
        while True:
            try:
                return self._finder.fetch(name, function.content, self._fetching)
            except CacheFull:
                if not self._release_one():
                    raise

    def _settle(self, name: str, function: NodeFunction, found: FoundWeights) -> None:
        """The weights are there: say so in the artifact, and to the platform."""
        self._take(function, found)
        with self._changed:
            current = self._functions.get(name) is function
        if current:
            self._placed(name)
        with self._changed:
            if current and self._functions.get(name) is function:
                function.placed, function.cause, function.wanted = True, "", 0
                return
        function.release()

    def _release_one(self) -> bool:
        """Let go of fetched weights that this node no longer needs. Returns whether there were some."""
        with self._changed:
            spare = [(name, f) for name, f in self._functions.items() if f.placed and f.entry and not f.hosted]
            if not spare:
                return False
            name, function = spare[0]
            function.placed = False
        try:
            self._gone(name)
        except FaasmoeError:  # its instances go on
            function.placed = True
            raise
        function.release()
        return True

    def _make(self, name: str, spec: FunctionSpec, content: FunctionContent, hosted: bool) -> NodeFunction:
        """A function that is new here. It is placed at once if its weights are known to be here."""
        if not content.whole():
            raise OptionError(f"function {name}: the digests of its weights do not fit its files")
        function = NodeFunction(spec=self._artifacts.named(spec, content), content=content)
        found = self._finder.known(content)
        if found and found.entry and not hosted:
            found.entry.close()  # it may be removed when there is no room
        elif found:
            try:
                self._take(function, found)
            except OptionError:
                function.release()
                raise
            function.placed = True
        return function

    def _take(self, function: NodeFunction, found: FoundWeights) -> None:
        function.entry = found.entry
        function.spec = self._artifacts.write(function.spec, function.content, found.rows)
