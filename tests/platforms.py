"""A platform without processes: functions are loaded here and called here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module

from faasmoe.errors import DeadlineExceeded, UnknownFunction
from faasmoe.platforms.base import Call, Capabilities, FunctionSpec, FunctionStatus


class InProcessPlatform:
    """Implements `platforms.base.Platform` for tests of what uses one."""

    capabilities = Capabilities(True, False, False, None, None)

    def __init__(self) -> None:
        self._functions: dict[str, Callable[[bytearray, int], Sequence[bytes]]] = {}
        self.calls: list[str] = []

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        for spec in specs:
            module, _, attribute = spec.handler.partition(":")
            self._functions[spec.name] = getattr(import_module(module), attribute)(str(spec.artifact))

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            del self._functions[name]

    def invoke_many(self, calls: Sequence[Call], deadline: float) -> list[bytearray]:
        return [self._invoke(call, deadline) for call in calls]

    def _invoke(self, call: Call, deadline: float) -> bytearray:
        if call.function not in self._functions:
            raise UnknownFunction("in-process", call.function, "it was never deployed")
        if time.monotonic() > deadline:
            raise DeadlineExceeded("in-process", call.function, "no answer within the deadline")
        self.calls.append(call.function)
        reply = self._functions[call.function](bytearray(b"".join(call.payload)), 0)
        return bytearray(b"".join(reply))

    def prewarm(self, names: Sequence[str]) -> None:
        pass

    def processes(self) -> Sequence[int]:
        return []

    def list(self) -> list[FunctionStatus]:
        return [FunctionStatus(name) for name in self._functions]

    def close(self) -> None:
        self._functions.clear()

    def __enter__(self) -> InProcessPlatform:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
