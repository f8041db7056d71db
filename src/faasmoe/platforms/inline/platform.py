"""A platform without processes: functions are loaded and called here, by a thread for each core.

It serves a whole model in one process, with everything else as on any platform. Nothing scales to zero by itself,
nothing is isolated, and a call that has begun cannot be stopped by its deadline.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from faasmoe.errors import DeadlineExceeded, FaasmoeError, PlatformError, UnknownFunction, brief
from faasmoe.platforms.base import (
    Buffer,
    Call,
    Capabilities,
    FunctionSpec,
    FunctionStatus,
    PoolStatus,
    PoolTotals,
    Replies,
    State,
)
from faasmoe.platforms.busy_time import BusyTime
from faasmoe.util.closeable import Closeable
from faasmoe.util.machine import cores

NAME = "inline"

Function = Callable[[memoryview, memoryview | None, int, Callable[[int], Buffer]], Buffer]


class _Instance:
    """A function that is loaded."""

    def __init__(self, memory: int, function: Function) -> None:
        self._gb = memory / 1e9
        self._function = function
        self._loaded = time.monotonic_ns()
        self._lock = threading.Lock()  # of all below
        self._busy = BusyTime()
        self._busy_seconds = 0.0
        self._invocations = 0

    def call(self, payload: memoryview, shared: memoryview | None) -> tuple[memoryview, float]:
        """The reply, and the call's share of the busy time in seconds."""
        with self._lock:
            begun = self._busy.begin(time.monotonic_ns())
        try:
            return memoryview(self._function(payload, shared, 0, bytearray)), self._end(begun)
        except BaseException:
            self._end(begun)
            raise

    def _end(self, begun: int) -> float:
        with self._lock:
            busy = self._busy.end(time.monotonic_ns(), begun) / 1e9
            self._busy_seconds += busy
            self._invocations += 1
            return busy

    def totals(self) -> PoolTotals:
        """Up to now."""
        with self._lock:
            lived, busy = (time.monotonic_ns() - self._loaded) / 1e9, self._busy_seconds
            return PoolTotals(self._gb * lived, self._gb * busy, busy, self._invocations, 1)


class InlinePlatform(Closeable):
    """Implements `platforms.base.Platform`."""

    capabilities = Capabilities(True, False, True, None, None, shared_memory=True)

    def __init__(self) -> None:
        self._specs: dict[str, FunctionSpec] = {}
        self._loaded: dict[str, _Instance] = {}
        self._gone = PoolTotals()  # of instances that are no more
        self._invocations: dict[str, int] = {}
        self._threads = ThreadPoolExecutor(cores(), "function")

    @property
    def address(self) -> str:
        """See `Platform.address`: no other process can connect."""
        return ""

    @property
    def state(self) -> State:
        """See `Platform.state`: functions are loaded here."""
        return "ok"

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        """See `Platform.deploy`."""
        for spec in specs:
            if self._specs.get(spec.name) != spec:
                self._unload(spec.name)
                self._specs[spec.name] = spec
                self._invocations[spec.name] = 0

    def remove(self, names: Sequence[str]) -> None:
        """See `Platform.remove`."""
        self.stop(names)
        for name in names:
            del self._specs[name]

    def check_fits(self, names: Sequence[str]) -> None:
        """Everything fits: there is no budget."""

    def invoke_many(
        self,
        calls: Sequence[Call],
        deadline: float,
        shared: Buffer | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Replies:
        """See `Platform.invoke_many`."""
        self.prewarm([call.function for call in calls])
        common = None if shared is None else memoryview(shared)
        answers = self._threads.map(lambda call: self._invoke(call, deadline, common), calls)
        if meanwhile is not None:
            meanwhile()
        replies = Replies(len(calls))
        for i, (call, (reply, busy)) in enumerate(zip(calls, answers, strict=True)):
            replies.data[i], replies.busy[i], replies.memory[i] = reply, busy, self._specs[call.function].memory
        return replies

    def _invoke(self, call: Call, deadline: float, shared: memoryview | None) -> tuple[memoryview, float]:
        if time.monotonic() > deadline:
            raise DeadlineExceeded(NAME, call.function, "no answer within the deadline: it has not begun")
        payload = memoryview(bytearray().join(call.payload))
        answer = self._loaded[call.function].call(payload, shared)
        self._invocations[call.function] += 1
        return answer

    def prewarm(self, names: Sequence[str]) -> None:
        """See `Platform.prewarm`."""
        for name in names:
            spec = self._spec(name)
            if name not in self._loaded:
                module, _, attribute = spec.handler.partition(":")
                try:
                    function = getattr(import_module(module), attribute)(str(spec.artifact))
                    self._loaded[name] = _Instance(spec.memory, function)
                except (FaasmoeError, OSError) as error:
                    cause = f"it cannot be loaded: {type(error).__name__}: {brief(error)}"
                    raise PlatformError(NAME, name, cause) from error

    def stop(self, names: Sequence[str]) -> None:
        """See `Platform.stop`."""
        for name in names:
            self._spec(name)
            self._unload(name)

    def _unload(self, name: str) -> None:
        if instance := self._loaded.pop(name, None):
            self._gone += instance.totals()

    def _spec(self, name: str) -> FunctionSpec:
        if name not in self._specs:
            raise UnknownFunction(NAME, name, "it is not deployed")
        return self._specs[name]

    def processes(self) -> Sequence[int]:
        """None but the caller's own."""
        return []

    def status(self) -> PoolStatus:
        """See `Platform.status`."""
        functions = [
            FunctionStatus(
                name,
                "idle" if name in self._loaded else "zero",
                instances=(0,) if name in self._loaded else (),
                invocations=self._invocations[name],
                memory=spec.memory if name in self._loaded else 0,
            )
            for name, spec in self._specs.items()
        ]
        used = sum(function.memory for function in functions)
        totals = sum((instance.totals() for instance in list(self._loaded.values())), self._gone)
        return PoolStatus(functions, None, used, 0, [], {}, totals)

    def close(self) -> None:
        """See `Platform.close`."""
        self._threads.shutdown()
        self._loaded.clear()
