"""A platform without processes: functions are loaded here and called here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module

from faasmoe.errors import DeadlineExceeded, UnknownFunction
from faasmoe.platforms.base import Buffer, Call, Capabilities, FunctionSpec, FunctionStatus, PoolStatus


class InProcessPlatform:
    """Implements `platforms.base.Platform` for tests of what uses one."""

    capabilities = Capabilities(True, False, False, None, None, shared_memory=True)

    def __init__(self) -> None:
        self._functions: dict[str, Callable[..., Buffer]] = {}
        self.calls: list[str] = []

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        for spec in specs:
            module, _, attribute = spec.handler.partition(":")
            self._functions[spec.name] = getattr(import_module(module), attribute)(str(spec.artifact))

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            del self._functions[name]

    def check_fits(self, names: Sequence[str]) -> None:
        pass

    def invoke_many(
        self, calls: Sequence[Call], deadline: float, shared: Buffer | None = None
    ) -> Sequence[memoryview]:
        return [self._invoke(call, deadline, shared) for call in calls]

    def _invoke(self, call: Call, deadline: float, shared: Buffer | None) -> memoryview:
        if call.function not in self._functions:
            raise UnknownFunction("in-process", call.function, "it is not deployed")
        if time.monotonic() > deadline:
            raise DeadlineExceeded("in-process", call.function, "no answer within the deadline")
        self.calls.append(call.function)
        payload = memoryview(bytearray(b"".join(call.payload)))
        return memoryview(self._functions[call.function](payload, shared, 0, bytearray))

    def prewarm(self, names: Sequence[str]) -> None:
        pass

    def processes(self) -> Sequence[int]:
        return []

    def stop(self, names: Sequence[str]) -> None:
        pass

    def status(self) -> PoolStatus:
        return PoolStatus([FunctionStatus(name) for name in self._functions], None, 0, 0, [], {})

    def close(self) -> None:
        self._functions.clear()

    def __enter__(self) -> InProcessPlatform:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
