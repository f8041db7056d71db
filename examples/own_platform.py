"""A platform of one thread: functions are loaded and called there, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from faasmoe.errors import DeadlineExceeded, UnknownFunction
from faasmoe.platforms import base
from faasmoe.platforms.deployed import DeployedFunction
from faasmoe.platforms.registry import PlatformEntry
from faasmoe.util.closeable import Closeable

NAME = "one-thread"


@dataclass(frozen=True)
class Options:
    """This platform takes none of the command line's: keep_alive, memory_budget, release_page_cache."""


class OneThreadPlatform(Closeable):
    capabilities = base.Capabilities(shared_memory=True, autoscaling=False, isolation=False, parallelism=1)
    address = ""  # no other process can connect
    state: base.State = "ok"

    def __init__(self) -> None:
        self.functions: dict[str, DeployedFunction] = {}
        self.gone = base.PoolTotals()  # of functions that were removed
        self.thread = ThreadPoolExecutor(1)

    def deploy(self, specs: Sequence[base.FunctionSpec]) -> None:
        for spec in specs:
            if spec.name in self.functions and self.functions[spec.name].spec != spec:
                self.remove([spec.name])
            self.functions.setdefault(spec.name, DeployedFunction(NAME, spec))

    def remove(self, names: Sequence[str]) -> None:
        self.stop(names)
        for name in names:
            self.gone += self.functions.pop(name).totals()

    def check_fits(self, names: Sequence[str]) -> None:
        list(map(self.find, names))

    def invoke_many(
        self,
        calls: Sequence[base.Call],
        deadline: float,
        shared: base.Buffer | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> base.Replies:
        common = None if shared is None else memoryview(shared)
        work = [(self.thread.submit(self.run, call, deadline, common), self.find(call.function)) for call in calls]
        if meanwhile is not None:
            meanwhile()
        replies = base.Replies(len(calls))
        for i, (answer, function) in enumerate(work):
            replies.data[i], replies.busy[i] = answer.result()
            replies.memory[i] = function.spec.memory
        return replies

    def run(self, call: base.Call, deadline: float, shared: memoryview | None) -> tuple[memoryview, float]:
        if time.monotonic() > deadline:
            raise DeadlineExceeded(NAME, call.function, "no answer within the deadline")
        return self.find(call.function).call(call, shared)

    def prewarm(self, names: Sequence[str]) -> None:
        for function in map(self.find, names):
            function.load()

    def stop(self, names: Sequence[str]) -> None:
        for function in [self.find(name) for name in names]:
            function.unload()  # a call that runs is finished

    def find(self, name: str) -> DeployedFunction:
        if name not in self.functions:
            raise UnknownFunction(NAME, name, "it is not deployed")
        return self.functions[name]

    def status(self) -> base.PoolStatus:
        deployed = list(self.functions.values())
        functions = [function.status() for function in deployed]
        used = sum(function.memory for function in functions)
        totals = sum((function.totals() for function in deployed), self.gone)
        return base.PoolStatus(functions, None, used, 0, [], {}, totals)

    def close(self) -> None:
        self.thread.shutdown()


ENTRY = PlatformEntry(name=NAME, options=Options, start=lambda options, preload: OneThreadPlatform())
