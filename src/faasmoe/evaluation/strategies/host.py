"""Starts a strategy's process, has it play workloads, and ends it."""

from __future__ import annotations

import selectors
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import IO, Self, TypeVar

import msgspec

from faasmoe.errors import MeasurementError
from faasmoe.evaluation.strategies.protocol import Orders, Play, Played, StrategyReady
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.util.processes import start

START_SECONDS = 600.0  # loading models from a slow disk
PLAY_SECONDS = 3600.0  # beyond what a workload lasts
_END_SECONDS = 60.0

Answer = TypeVar("Answer", StrategyReady, Played)


class Host:
    """A strategy that runs while this is entered. Raises `MeasurementError` if it fails or is too slow."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._longest = 0.0

    @property
    def pid(self) -> int:
        """The process id. All descendants of the process belong to the strategy."""
        return self._process.pid

    def play(self, asks: Sequence[Ask]) -> Played:
        """Have it ask what `asks` say, and wait for all answers."""
        self.begin(asks)
        return self.end()

    def begin(self, asks: Sequence[Ask]) -> None:
        """The first half of `play`."""
        self._longest = max((ask.time or 0.0 for ask in asks), default=0.0)
        self._say(Play(tuple(asks)))

    def end(self) -> Played:
        """The other half."""
        return self._hear(Played, self._longest + PLAY_SECONDS)

    def launch(self) -> None:
        """The first half of entering it: starts the process. `stop` must follow some time."""
        module = "faasmoe.evaluation.strategies.process"
        self._process = start(module, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._say(self._orders)
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """The other half: returns when it can play."""
        ready = self._hear(StrategyReady, START_SECONDS)
        if ready.error:
            raise MeasurementError(f"{self._orders.strategy} does not start: {ready.error}")

    def __enter__(self) -> Self:
        self.launch()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process, which ends all that it has started."""
        self._pipe(self._process.stdin).close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe(self._process.stdout).close()

    def _say(self, what: Orders | Play) -> None:
        pipe = self._pipe(self._process.stdin)
        try:
            pipe.write(msgspec.json.encode(what) + b"\n")
            pipe.flush()
        except BrokenPipeError:
            raise MeasurementError(f"{self._orders.strategy} has died") from None

    def _hear(self, kind: type[Answer], seconds: float) -> Answer:
        pipe, line = self._pipe(self._process.stdout), b""
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise MeasurementError(f"{self._orders.strategy} has not answered within {seconds:.0f} s")
                part = pipe.read1(1 << 20)  # type: ignore[attr-defined]
                if not part:
                    raise MeasurementError(f"{self._orders.strategy} has died; its error output is above")
                line += part
        return msgspec.json.decode(line, type=kind)

    def _pipe(self, pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None  # noqa: S101 - for the type checker
        return pipe


@contextmanager
def one_for_each(tenants: Sequence[str], orders: Orders) -> Iterator[dict[str, Host]]:
    """A process with these orders for each of the tenants, all started at the same time."""
    hosts = {tenant: Host(msgspec.structs.replace(orders, tenants=(tenant,))) for tenant in tenants}
    with ExitStack() as started:
        for host in hosts.values():
            host.launch()
            started.callback(host.stop)
        for host in hosts.values():
            host.wait()
        yield hosts


def play_on_each(hosts: Mapping[str, Host], asks: Sequence[Ask]) -> Played:
    """Have each tenant's process play the tenant's own requests, all processes at the same time."""
    for tenant, host in hosts.items():
        host.begin([ask for ask in asks if ask.tenant == tenant])
    played = [host.end() for host in hosts.values()]
    return Played(
        requests=tuple(request for one in played for request in one.requests),
        invocations=sum(one.invocations for one in played),
        cold_starts=sum(one.cold_starts for one in played),
    )
