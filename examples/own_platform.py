"""A platform of threads: functions are loaded in the process that calls them, and run by some threads of it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from faasmoe.errors import DeadlineExceeded, OptionError, UnknownFunction
from faasmoe.platforms import base
from faasmoe.platforms.deployed import DeployedFunction
from faasmoe.platforms.registry import PlatformEntry
from faasmoe.util.closeable import Closeable

NAME = "threads"


@dataclass(frozen=True)
class Options:
    """One of its own, by --platform-option; none of keep_alive, memory_budget and release_page_cache."""

    threads: int = field(default=1, metadata={"help": "Threads that run functions."})

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise OptionError(f"threads is {self.threads}: must be at least 1")


class ThreadsPlatform(Closeable):
    address = ""  # no other process can connect
    state: base.State = "ok"

    def __init__(self, threads: int) -> None:
        self.capabilities = base.Capabilities(
            shared_memory=True, autoscaling=False, isolation=False, parallelism=threads
        )
        self.functions: dict[str, DeployedFunction] = {}
        self.gone = base.PoolTotals()  # of functions that were removed
        self.threads = ThreadPoolExecutor(threads)

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
        answers = [self.threads.submit(self.run, call, deadline, common) for call in calls]
        if meanwhile is not None:
            meanwhile()
        replies = base.Replies(len(calls))
        for i, answer in enumerate(answers):
            replies.data[i], replies.busy[i], replies.memory[i] = answer.result()
        return replies

    def run(self, call: base.Call, deadline: float, shared: memoryview | None) -> tuple[memoryview, float, int]:
        if time.monotonic() > deadline:
            raise DeadlineExceeded(NAME, call.function, "no answer within the deadline")
        function = self.find(call.function)
        return *function.call(call, shared), function.spec.memory

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
        functions = [function.status() for function in self.functions.values()]
        used = sum(function.memory for function in functions)
        totals = sum((function.totals() for function in self.functions.values()), self.gone)
        return base.PoolStatus(functions=functions, memory_used=used, totals=totals)

    def close(self) -> None:
        self.threads.shutdown()


ENTRY = PlatformEntry(name=NAME, options=Options, start=lambda options, preload: ThreadsPlatform(options.threads))
