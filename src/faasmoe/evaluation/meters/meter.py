"""Measures a system while it is entered: CPU time and memory by role, and the meter's own cost."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import IO, Any, Self

from faasmoe.errors import MeasurementError
from faasmoe.evaluation.meters.budget import SHARE
from faasmoe.evaluation.meters.residency import Range
from faasmoe.util.processes import start

INTERVAL = 0.1  # seconds between samples
_DEADLINE = 60.0  # seconds for an answer of the sampler, on a machine that is busy with what it samples


@dataclass(frozen=True, slots=True)
class MeterCost:
    """The cost of measuring. The last two are 0 in results of versions that counted everything in `cpu_seconds`."""

    cpu_seconds: float  # of CPU time while it was measured
    samples: int
    missed: int  # samples that were left out because there was no time for them
    cpu_seconds_around: float = 0.0  # before the first sample and after the last one
    walks: int = 0  # through page tables of a process


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredUsage:
    """The usage of a system. Memory is proportional set size; `resident` is page cache by group of files."""

    times: Sequence[float]  # seconds after the first sample
    pss: Mapping[str, Sequence[int]]  # role to bytes at those times
    cpu: Mapping[str, Sequence[float]]  # role to seconds of CPU time until then
    resident_times: Sequence[float]
    resident: Mapping[str, Sequence[int]]  # group of files to bytes at those times
    meter: MeterCost

    @property
    def seconds(self) -> float:
        """The length of the measurement in seconds."""
        return self.times[-1]

    @property
    def cpu_seconds(self) -> dict[str, float]:
        """By role."""
        return {role: column[-1] for role, column in self.cpu.items()}

    @property
    def meter_share(self) -> float:
        """The share of one core that measuring took."""
        return self.meter.cpu_seconds / self.seconds if self.seconds else 0.0

    @property
    def cpu_percent(self) -> float:
        """The mean use of all roles, in percent of one core."""
        return 100 * sum(self.cpu_seconds.values()) / self.seconds

    @property
    def peak(self) -> dict[str, int]:
        """Bytes by role, each at its own time."""
        return {role: max(column) for role, column in self.pss.items()}

    @property
    def total(self) -> list[int]:
        """Bytes of all roles together, at `times`."""
        return [sum(row) for row in zip(*self.pss.values(), strict=True)]

    @property
    def gb_seconds(self) -> dict[str, float]:
        """10^9 bytes times seconds, by role."""
        return {role: integral(self.times, column) / 1e9 for role, column in self.pss.items()}

    @property
    def mean(self) -> dict[str, float]:
        """Bytes by role, averaged over time."""
        return {role: 1e9 * amount / self.seconds for role, amount in self.gb_seconds.items()}


def integral(times: Sequence[float], values: Sequence[float]) -> float:
    """The integral of the curve through the points."""
    points = zip(times, values, strict=True)
    return sum((t2 - t1) * (v1 + v2) / 2 for (t1, v1), (t2, v2) in pairwise(points))


class Meter:
    """Has a process sample `root` and its descendants while it is entered; `usage` is there afterwards.

    `role` is the root's. `files` are groups of file ranges whose page-cache residency is wanted. It samples each
    `interval` seconds, and takes `share` of a core. Raises `MeasurementError` if the sampler fails or the kernel does
    not tell what is asked for.
    """

    usage: MeasuredUsage

    def __init__(
        self,
        role: str,
        root: int | None = None,
        files: Mapping[str, Sequence[Range]] | None = None,
        interval: float = INTERVAL,
        share: float = SHARE,
    ) -> None:
        self._interval = interval
        self._orders = {
            "root": root or os.getpid(), "role": role, "files": dict(files or {}), "interval": interval, "share": share
        }  # fmt: skip

    def __enter__(self) -> Self:
        module = "faasmoe.evaluation.meters.sampler"
        self._process = start(module, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._begin(self._process.stdin, self._process.stdout)  # type: ignore[arg-type]
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            text, _ = self._process.communicate(timeout=_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            text = json.dumps({"error": f"it did not end within {_DEADLINE} s"}).encode()
        if error is not None:  # what went wrong inside matters more
            return
        raw = json.loads(text or b'{"error": "it died"}')
        self._check(raw)
        samples, wanted = len(raw["times"]), 1 + int(raw["times"][-1] / self._interval)
        cost = MeterCost(samples=samples, missed=max(0, wanted - samples), **raw.pop("meter"))
        self.usage = MeasuredUsage(**raw, meter=cost)

    def _begin(self, orders: IO[bytes], answers: IO[bytes]) -> None:
        orders.write(json.dumps(self._orders).encode() + b"\n")
        orders.flush()
        there = select.select([answers], [], [], _DEADLINE)[0]
        self._check(json.loads((there and answers.readline()) or b'{"error": "it did not start"}'))

    def _check(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            raise MeasurementError(f"the process that measures: {answer['error']}")
