"""A platform without processes: functions are loaded and called here, by a thread for each core.

It serves a whole model in one process, with everything else as on any platform. Nothing scales to zero by itself,
nothing is isolated, and a call that has begun cannot be stopped by its deadline.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module

from faasmoe.errors import DeadlineExceeded, FaasmoeError, FunctionError, PlatformError, UnknownFunction, brief
from faasmoe.platforms.base import (
    USUAL_REPLY_BYTES,
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
from faasmoe.platforms.latency import BUCKETS, bound_of, bucket_of, percentile
from faasmoe.util.closeable import Closeable
from faasmoe.util.machine import cores

NAME = "inline"

Function = Callable[[memoryview, memoryview | None, int, Callable[[int], Buffer]], Buffer]


@dataclass(slots=True)
class _Function:
    """What calls of a deployed function have done so far. The lock of its platform guards it."""

    spec: FunctionSpec
    running: int = 0
    invocations: int = 0
    cold_starts: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def status(self, loaded: bool) -> FunctionStatus:
        return FunctionStatus(
            self.spec.name,
            "busy" if self.running else "idle" if loaded else "zero",
            instances=(0,) if loaded else (),
            invocations=self.invocations,
            cold_starts=self.cold_starts,
            p50=percentile(self.latency, 0.5),
            p99=percentile(self.latency, 0.99),
            memory=self.spec.memory if loaded else 0,
        )


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

    capabilities = Capabilities(shared_memory=True, autoscaling=False, isolation=False)

    def __init__(self) -> None:
        self._functions: dict[str, _Function] = {}
        self._loaded: dict[str, _Instance] = {}
        self._gone = PoolTotals()  # of instances that are no more
        self._lock = threading.Lock()  # of all above
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
        with self._lock:
            for spec in specs:
                known = self._functions.get(spec.name)
                if known is None or known.spec != spec:
                    self._unload(spec.name)
                    self._functions[spec.name] = _Function(spec)

    def remove(self, names: Sequence[str]) -> None:
        """See `Platform.remove`."""
        self.stop(names)
        with self._lock:
            for name in names:
                self._functions.pop(name, None)

    def check_fits(self, names: Sequence[str]) -> None:
        """Every function fits: there is no budget. Raises `UnknownFunction`."""
        with self._lock:
            for name in names:
                self._function(name)

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
        for i, (reply, busy, memory) in enumerate(answers):
            replies.data[i], replies.busy[i], replies.memory[i] = reply, busy, memory
        return replies

    def _invoke(self, call: Call, deadline: float, shared: memoryview | None) -> tuple[memoryview, float, int]:
        """The reply, the busy time in seconds, and the bytes that the instance counts for."""
        begun = time.monotonic()
        if begun > deadline:
            raise DeadlineExceeded(NAME, call.function, "no answer within the deadline: it has not begun")
        with self._lock:
            function, instance = self._function(call.function), self._load(call.function)
            function.running += 1
        try:
            reply, busy = instance.call(memoryview(bytearray().join(call.payload)), shared)
            if len(reply) > max(call.reply_bytes, USUAL_REPLY_BYTES):
                raise ValueError(f"a reply of {len(reply)} bytes, but the caller foresaw {call.reply_bytes}")
        except Exception as error:
            raise FunctionError(call.function, type(error).__name__, brief(error)) from error
        finally:
            with self._lock:
                function.running -= 1
                function.invocations += 1
                function.latency[bucket_of(int(1e9 * (time.monotonic() - begun)))] += 1
        return reply, busy, function.spec.memory

    def prewarm(self, names: Sequence[str]) -> None:
        """See `Platform.prewarm`."""
        with self._lock:
            for name in names:
                self._load(name)

    def stop(self, names: Sequence[str]) -> None:
        """See `Platform.stop`."""
        with self._lock:
            for name in names:
                self._function(name)
            for name in names:
                self._unload(name)

    def _load(self, name: str) -> _Instance:
        function = self._function(name)
        if name not in self._loaded:
            module, _, attribute = function.spec.handler.partition(":")
            try:
                loaded = getattr(import_module(module), attribute)(str(function.spec.artifact))
            except (FaasmoeError, OSError) as error:
                cause = f"it cannot be loaded: {type(error).__name__}: {brief(error)}"
                raise PlatformError(NAME, name, cause) from error
            self._loaded[name] = _Instance(function.spec.memory, loaded)
            function.cold_starts += 1
        return self._loaded[name]

    def _unload(self, name: str) -> None:
        if instance := self._loaded.pop(name, None):
            self._gone += instance.totals()

    def _function(self, name: str) -> _Function:
        if name not in self._functions:
            raise UnknownFunction(NAME, name, "it is not deployed")
        return self._functions[name]

    def status(self) -> PoolStatus:
        """See `Platform.status`."""
        with self._lock:
            functions = [function.status(name in self._loaded) for name, function in self._functions.items()]
            counts = [sum(bucket) for bucket in zip(*(f.latency for f in self._functions.values()), strict=True)]
            totals = sum((instance.totals() for instance in self._loaded.values()), self._gone)
        used = sum(function.memory for function in functions)
        latency = [(bound_of(bucket), count) for bucket, count in enumerate(counts)]
        return PoolStatus(functions, None, used, 0, latency, {}, totals)

    def close(self) -> None:
        """See `Platform.close`."""
        self._threads.shutdown()
        self._loaded.clear()
