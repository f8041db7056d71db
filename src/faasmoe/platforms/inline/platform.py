"""A platform without processes: functions are loaded in the calling process, and called by a thread for each core.

One process serves a whole model. No function scales to zero by itself, none is isolated, and a deadline cannot
stop a call that has begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from faasmoe.errors import DeadlineExceeded, UnknownFunction
from faasmoe.platforms.base import (
    Call,
    Capabilities,
    FunctionSpec,
    PoolStatus,
    PoolTotals,
    Replies,
    State,
)
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.deployed import DeployedFunction
from faasmoe.platforms.latency import bound_of
from faasmoe.util.closeable import Closeable
from faasmoe.util.machine import cores

NAME = "inline"


class InlinePlatform(Closeable):
    """Implements `platforms.base.Platform`."""

    def __init__(self) -> None:
        threads = cores()
        self.capabilities = Capabilities(
            shared_memory=True, autoscaling=False, isolation=False, parallelism=threads
        )
        self._functions: dict[str, DeployedFunction] = {}
        self._gone = PoolTotals()  # of functions that were removed
        self._threads = ThreadPoolExecutor(threads, "function")

    @property
    def address(self) -> str:
        """See `Platform.address`: no other process can connect."""
        return ""

    @property
    def state(self) -> State:
        """See `Platform.state`: instances need no process to be started."""
        return "ok"

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        """See `Platform.deploy`."""
        for spec in specs:
            known = self._functions.get(spec.name)
            if known is None or known.spec != spec:
                self._forget(spec.name)
                self._functions[spec.name] = DeployedFunction(NAME, spec)

    def remove(self, names: Sequence[str]) -> None:
        """See `Platform.remove`."""
        self.stop(names)
        for name in names:
            self._forget(name)

    def check_fits(self, names: Sequence[str]) -> None:
        """Every function fits: there is no budget. Raises `UnknownFunction`."""
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
        if time.monotonic() > deadline:
            raise DeadlineExceeded(NAME, call.function, "no answer within the deadline: it has not begun")
        function = self._function(call.function)
        reply, busy = function.call(call, shared)
        return reply, busy, function.spec.memory

    def prewarm(self, names: Sequence[str]) -> None:
        """See `Platform.prewarm`."""
        for name in names:
            self._function(name).load()

    def stop(self, names: Sequence[str]) -> None:
        """See `Platform.stop`."""
        for function in [self._function(name) for name in names]:
            function.unload()

    def _forget(self, name: str) -> None:
        if function := self._functions.pop(name, None):
            function.unload()
            self._gone += function.totals()

    def _function(self, name: str) -> DeployedFunction:
        if name not in self._functions:
            raise UnknownFunction(NAME, name, "it is not deployed")
        return self._functions[name]

    def status(self) -> PoolStatus:
        """See `Platform.status`."""
        deployed = list(self._functions.values())
        functions = [function.status() for function in deployed]
        used = sum(function.memory for function in functions)
        counts = [sum(bucket) for bucket in zip(*(function.latency for function in deployed), strict=True)]
        latency = [(bound_of(bucket), count) for bucket, count in enumerate(counts)]
        totals = sum((function.totals() for function in deployed), self._gone)
        return PoolStatus(functions=functions, memory_used=used, latency=latency, totals=totals)

    def close(self) -> None:
        """See `Platform.close`."""
        self._threads.shutdown()
        self._functions.clear()
