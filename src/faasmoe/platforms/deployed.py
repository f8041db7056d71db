"""A deployed function that is loaded and called in this process, for platforms that are written in Python."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from importlib import import_module
from socket import gethostname

from faasmoe.errors import FaasmoeError, FunctionError, PlatformError, brief
from faasmoe.platforms.base import (
    USUAL_REPLY_BYTES,
    Call,
    FunctionSpec,
    FunctionStatus,
    Instance,
    PoolTotals,
)
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.busy_time import BusyTime
from faasmoe.platforms.latency import BUCKETS, bucket_of, percentile

_NODE = gethostname()

Function = Callable[[memoryview, memoryview | None, int, Callable[[int], Buffer]], Buffer]


class DeployedFunction:
    """A function with at most one instance, and the totals of its calls. Any thread may call its methods.

    `platform` is the platform's name, in errors.
    """

    def __init__(self, platform: str, spec: FunctionSpec) -> None:
        self.spec = spec
        self.latency = [0] * BUCKETS  # calls by duration
        self._platform = platform
        self._gb = spec.memory / 1e9
        self._lock = threading.Lock()  # of all below
        self._function: Function | None = None
        self._loaded = 0  # instant of `time.monotonic_ns`
        self._busy = BusyTime()
        self._running = 0
        self._totals = PoolTotals()  # without the lifetime of the present instance

    def load(self) -> Function:
        """Load the function if it is not loaded, and return it. Raises `PlatformError`."""
        with self._lock:
            if self._function is None:
                module, _, attribute = self.spec.handler.partition(":")
                try:
                    self._function = getattr(import_module(module), attribute)(str(self.spec.artifact))
                except (FaasmoeError, OSError) as error:
                    cause = f"it cannot be loaded: {type(error).__name__}: {brief(error)}"
                    raise PlatformError(self._platform, self.spec.name, cause) from error
                self._loaded = time.monotonic_ns()
                self._totals += PoolTotals(cold_starts=1)
            return self._function

    def unload(self) -> None:
        """End the instance, if there is one. Running calls are finished."""
        with self._lock:
            self._totals, self._function = self._totals + self._alive(), None

    def call(self, call: Call, shared: memoryview | None = None) -> tuple[memoryview, float]:
        """The reply, and the call's share of the time in which the instance worked, in seconds.

        Raises `PlatformError` if the function cannot be loaded, `FunctionError` if it fails.
        """
        function = self.load()
        with self._lock:
            began = time.monotonic_ns()
            begun = self._busy.begin(began)
            self._running += 1
        try:
            reply = memoryview(function(memoryview(bytearray().join(call.payload)), shared, 0, bytearray))
            if len(reply) > max(call.reply_bytes, USUAL_REPLY_BYTES):
                raise ValueError(f"a reply of {len(reply)} bytes, but the caller foresaw {call.reply_bytes}")
        except Exception as error:
            raise FunctionError(call.function, type(error).__name__, brief(error)) from error
        finally:
            with self._lock:
                ended = time.monotonic_ns()
                busy = self._busy.end(ended, begun) / 1e9
                self._running -= 1
                self.latency[bucket_of(ended - began)] += 1
                self._totals += PoolTotals(0.0, self._gb * busy, busy, 1)
        return reply, busy

    def totals(self) -> PoolTotals:
        """Totals of its instances and calls until now."""
        with self._lock:
            return self._totals + self._alive()

    def status(self) -> FunctionStatus:
        """See `FunctionStatus`."""
        with self._lock:
            loaded = self._function is not None
            return FunctionStatus(
                self.spec.name,
                "busy" if self._running else "idle" if loaded else "zero",
                instances=(Instance(self.spec.name, _NODE),) if loaded else (),
                invocations=self._totals.invocations,
                cold_starts=self._totals.cold_starts,
                p50=percentile(self.latency, 0.5),
                p99=percentile(self.latency, 0.99),
                memory=self.spec.memory if loaded else 0,
            )

    def _alive(self) -> PoolTotals:
        """The lifetime so far of the present instance."""
        seconds = 0.0 if self._function is None else (time.monotonic_ns() - self._loaded) / 1e9
        return PoolTotals(self._gb * seconds)
