"""Contract 2: what a platform must do, and what it may say about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A function to deploy.

    `handler` is `module:attribute` of a callable that loads `artifact` and returns the function itself:
    bytes in, bytes out (`experts.handler.load`).
    """

    name: str
    handler: str
    artifact: Path
    keep_alive: float | None = None  # seconds; None: the platform's default


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation: the envelope's parts, to be sent as one."""

    function: str
    payload: Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a platform can do."""

    binary_payloads: bool
    scale_to_zero: bool
    prewarm: bool
    largest_payload: int | None  # bytes; None: no limit
    most_functions: int | None  # None: no limit


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """A deployed function, as the platform sees it."""

    name: str
    instances: tuple[int, ...] = field(default=())  # process ids, or other numbers that tell instances apart
    invocations: int = 0
    cold_starts: int = 0


class Platform(Protocol):
    """Runs functions. Safe to use from one thread at a time."""

    capabilities: Capabilities

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        """Make functions callable. No instance is started. Deploying a name again replaces it."""

    def remove(self, names: Sequence[str]) -> None:
        """Stop the functions' instances and forget them. Raises `UnknownFunction`."""

    def invoke_many(self, calls: Sequence[Call], deadline: float) -> list[bytearray]:
        """Run all calls, side by side; replies come in the order of `calls`.

        `deadline` is an instant of `time.monotonic`. A call whose instance is lost is tried again elsewhere
        until then. Raises `DeadlineExceeded`, `UnknownFunction` or `PlatformError`, naming function and cause.
        """

    def prewarm(self, names: Sequence[str]) -> None:
        """Start an instance of each function that has none. Raises `UnknownFunction` or `PlatformError`."""

    def processes(self) -> Sequence[int]:
        """Ids of this machine's processes that do the platform's work: its own and all instances."""

    def list(self) -> list[FunctionStatus]:
        """All deployed functions."""

    def close(self) -> None:
        """Stop everything that this object started. May be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
